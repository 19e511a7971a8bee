"""A codec that condic does not know becomes a bundle: the example of docs/own-codec.md, with what it promises."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from condic.errors import BundleError, InputError  # noqa: E402
from condic.export.build import build_bundle  # noqa: E402
from condic.export.checks import check_source  # noqa: E402
from condic.export.guard import guarded, random_images  # noqa: E402
from condic.export.identity import bundle_id  # noqa: E402
from condic.export.source import SourceGraph  # noqa: E402
from condic.models.entropy import interval_bits  # noqa: E402
from condic.models.exact import ExactConv  # noqa: E402
from condic.runtime.backends import BackendOptions  # noqa: E402
from condic.runtime.bitstream import read_stream  # noqa: E402
from condic.runtime.bundle import Bundle, read_bundle, write_bundle  # noqa: E402
from condic.runtime.codec import Codec  # noqa: E402
from condic.runtime.manifest import Step, TensorSpec  # noqa: E402

EXAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "docs" / "hyperprior.py")))


@pytest.fixture(scope="module")
def net() -> Any:
    """A small one with random weights, scaled so that latents and deviations are as wide as trained ones."""
    torch.manual_seed(0)
    net = EXAMPLE.Hyperprior(16, 24).eval()
    with torch.no_grad():
        y = _scale(net.g_a, _tensor(_image()), 4.0)
        z = _scale(net.h_a, y, 3.0)
        _scale(net.h_s, z, 1.0)
        net.h_s[-1].bias[:24] += 5  # deviations
        _scale(net.g_s, y, 0.2)
        net.g_s[-1].bias += 0.5
    return net.half().float()


def _scale(network: Any, inputs: Any, deviation: float) -> Any:
    network[-1].weight *= deviation / network(inputs).std()
    return network(inputs)


def _image() -> npt.NDArray[np.uint8]:
    return random_images(150)[1]


def _tensor(image: npt.NDArray[np.uint8]) -> Any:
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 255


def _source(net: Any) -> Any:
    return EXAMPLE.describe(net, _tensor(_image()))


@pytest.fixture(scope="module")
def bundle(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("own") / "mine.condic"
    write_bundle(guarded(build_bundle(_source(net), {"licence": "CC0"})), path)
    return read_bundle(path)


@pytest.mark.parametrize("kind", ["photograph", "blocks"])
def test_its_files_are_the_same_on_all_backends(bundle: Bundle, kind: str):
    """On blocks, and at sizes other than those that the guard was measured with, backends differ most."""
    image = _image() if kind == "photograph" else random_images(320)[2]
    files = []
    codecs = [
        Codec(bundle, x, BackendOptions(threads=1)) for x in ("ort", "torch", "openvino") if x == "ort" or find_spec(x)
    ]
    for codec in codecs:
        files.append(codec.encode(image, 32))
    for data in files:
        assert len({codec.decode(data, latents=True).latents_sha256() for codec in codecs}) == 1


def test_the_script_writes_a_bundle_with_weights_or_without(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(EXAMPLE.main.__globals__, "Hyperprior", lambda: EXAMPLE.Hyperprior(16, 24))
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    Image.fromarray(random_images(256)[0]).save(tmp_path / "photograph.png")
    EXAMPLE.main(str(tmp_path / "random.condic"))
    EXAMPLE.main(*(str(tmp_path / name) for name in ("mine.condic", "weights.pt", "photograph.png")))
    random, mine = (read_bundle(tmp_path / f"{name}.condic") for name in ("random", "mine"))
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/mine.condic: {mine.manifest.bundle_id[:16]}"
    assert random.manifest.bundle_id != mine.manifest.bundle_id
    codec = Codec(mine, "ort", BackendOptions(threads=1))
    assert codec.decode(codec.encode(_image(), 0)).image.shape == (150, 300, 3)


@torch.no_grad()
def test_a_file_takes_what_the_model_expects_and_decodes_to_what_it_says(net: Any, bundle: Bundle):
    codec = Codec(bundle, "ort", BackendOptions(threads=1))
    data = codec.encode(_image(), 32)
    decoded = codec.decode(data, latents=True)
    y_hat, z_hat = (torch.from_numpy(decoded.latents[name]).float()[None] / 16 for name in ("main", "hyper"))
    padded = torch.nn.functional.pad(_tensor(_image()), (0, 20, 0, 42), mode="replicate")
    assert padded.shape == (1, 3, 192, 320)
    y = net.g_a(padded)
    sigma, mean = net.h_s(z_hat).chunk(2, dim=1)
    assert (y_hat - y).abs().max() <= 0.5 + 1 / 32 + 1e-3  # a mean is rounded to 1/16
    bits = interval_bits((y_hat - mean).double(), sigma.clamp(0.11, 64).double()).sum()
    z = net.h_a(y)
    deviation = net.h_a(net.g_a(_tensor(_image()))).transpose(0, 1).flatten(1).std(1)
    bits += interval_bits(z_hat - z_hat.mean((2, 3), keepdim=True), deviation[:, None, None]).sum()
    assert (z_hat - z).abs().max() <= 0.5 + 1 / 32 + 1e-3
    latents = sum(len(section.payload) for section in read_stream(data).sections if section.kind < 2)
    assert 8 * latents == pytest.approx(float(bits), rel=0.02)
    assert len(data) < latents + 160

    picture = (255 * net.g_s(y_hat)[0, :, :150, :300]).permute(1, 2, 0).round().clamp(0, 255)
    assert np.abs(decoded.image.astype(int) - picture.numpy()).max() <= 1


def test_what_it_says_of_itself_must_be_true(net: Any):
    source = _source(net)

    def other(k: int, **changes: Any) -> Any:
        graphs = list(source.graphs)
        graphs[k] = replace(graphs[k], **changes)
        return replace(source, graphs=tuple(graphs))

    with pytest.raises(InputError, match=r"g_a\.0\.weight has more digits than half precision, .* model\.half\(\)"):
        build_bundle(_source(EXAMPLE.Hyperprior(16, 24)), {})
    with pytest.raises(InputError, match="graph synthesis has weights that are not its codec's `model`'s"):
        build_bundle(other(3, network=EXAMPLE.Hyperprior(16, 24).half().float().g_s), {})
    with pytest.raises(
        InputError, match=r"graph analysis: an image of 64x64 gives \[\(1, 24, 4, 4\)\], its outputs say"
    ):
        build_bundle(other(0, outputs=(TensorSpec("main", 25, 16),)), {})
    with pytest.raises(InputError, match="graph analysis: main at 1/24 has no whole number of elements in 64 pixels"):
        build_bundle(other(0, outputs=(TensorSpec("main", 24, 24),)), {})
    with pytest.raises(InputError, match="graph context has two tensors of one name: main, main"):
        build_bundle(other(2, inputs=(TensorSpec("main", 24, 16),), outputs=(TensorSpec("main", 48, 16),)), {})
    with pytest.raises(InputError, match=r"graph hyper_analysis fails on an image of 64x64: .*to have 24 channels"):
        build_bundle(other(1, inputs=(TensorSpec("main", 25, 16),)), {})


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda x: [x], "gives list, not a tensor of torch.float32"),
        (lambda x: (x, x.double()), "gives torch.float32, torch.float64, not a tensor"),
        (lambda x: x * 2 if x.sum().item() > 0 else x, "PyTorch does not export it: Could not guard on data-dependent"),
        (lambda x: torch.special.bessel_j0(x.detach()), "PyTorch does not export it: No ONNX function .*bessel_j0"),
        (lambda x: x * 2 if x.shape[2] == x.shape[3] else x, "differs from PyTorch by"),
        (lambda x: x * 2 if x.shape[2] % 3 else x, "differs from PyTorch by"),
    ],
)
def test_a_network_that_cannot_be_a_graph_is_named(net: Any, compute: Callable[[Any], Any], message: str):
    class Analysis(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g_a = net.g_a

        def forward(self, x: Any) -> Any:
            return compute(self.g_a(x))

    source = _source(net)
    first, *others = source.graphs
    with pytest.raises(InputError, match=f"graph analysis:? {message}"):
        build_bundle(replace(source, graphs=(replace(first, network=Analysis()), *others)), {})


def test_what_does_not_fit_together_is_told_before_graphs_are_exported(net: Any):
    begun: list[str] = []
    source = _source(net)
    tables = {name: table for name, table in source.tables.items() if name != "first.hyper"}
    with pytest.raises(
        BundleError, match=r"codec hyperprior: inconsistent bundle: latent hyper: no table first\.hyper"
    ):
        build_bundle(replace(source, tables=tables), {}, begin=begun.append)
    assert begun == [f"measuring {graph.role}" for graph in source.graphs]


@torch.no_grad()
def test_its_id_follows_all_that_it_computes_with(net: Any):
    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.BatchNorm2d(1)

    module = Normalised()
    source = replace(_source(net), model=module)
    ids = [bundle_id(source, {})]
    change: list[Callable[[], object]] = [
        lambda: module.layer.weight.fill_(2), lambda: module.layer.running_mean.fill_(3),
        lambda: module.layer.running_var.fill_(4),
    ]  # fmt: skip
    for each in change:
        each()
        ids.append(bundle_id(source, {}))
    module.layer.num_batches_tracked.fill_(5)  # is not computed with
    assert len(set(ids)) == 4
    assert bundle_id(source, {}) == ids[-1]


def test_statistics_must_have_half_precision_too(net: Any):
    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.BatchNorm2d(1)
            self.layer.running_var.fill_(1.0004)

    with pytest.raises(InputError, match="a buffer of layer has more digits than half precision"):
        build_bundle(replace(_source(net), model=Normalised(), graphs=()), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.half(), r"g_a\.0\.weight is torch.float16; models are exported in float32"),
        (lambda net: net.double(), r"g_a\.0\.weight is torch.float64"),
        (lambda net: net.g_a[0].weight.data.fill_(1e5), r"g_a\.0\.weight has values that are not finite or beyond"),
        (lambda net: net.g_a[0].bias.data.fill_(float("nan")), r"g_a\.0\.bias has values that are not finite"),
    ],
)
def test_weights_that_a_bundle_cannot_hold_are_named(net: Any, change: Callable[[Any], Any], message: str):
    source, copy = _source(net), deepcopy(net)
    change(copy)
    with pytest.raises(InputError, match=message):
        build_bundle(replace(source, model=copy, graphs=()), {})


def test_options_and_provenance_are_text(net: Any):
    with pytest.raises(InputError, match="option slope is a float; manifests have strings"):
        build_bundle(replace(_source(net), options={"slope": 0.01}), {})
    with pytest.raises(InputError, match="provenance: epochs is a int"):
        build_bundle(_source(net), {"epochs": 3})


def test_a_graph_in_integers_has_layers_in_integers_and_a_bias(net: Any):
    source = _source(net)
    exact = replace(source.graphs[2], guarded=False, limits=((-9, 9),))
    with pytest.raises(InputError, match="graph context has `limits`, but no layer that computes in integers"):
        build_bundle(replace(source, graphs=(*source.graphs[:2], exact, source.graphs[3])), {})


@pytest.mark.parametrize(
    ("limits", "table", "frozen", "message"),
    [
        ((-3000, 3000), np.zeros((64, 48), np.int32), True, r"`limits` \(\(-3000, 3000\),\) do not lie in -2047..2047"),
        ((9, -9), np.zeros((64, 48), np.int32), True, "do not lie in"),
        (
            (-9, 9),
            np.zeros((64, 48), np.float32),
            True,
            r"quality.context is float32 of .* takes integers of .*\(64, 48\)",
        ),
        ((-9, 9), np.zeros((64, 8), np.int16), True, r"quality.context is int16 of shape \(64, 8\)"),
        ((-9, 9), np.zeros(64, np.int16), True, r"quality.context is int16 of shape \(64,\)"),
        ((-9, 9), np.full((64, 48), 2**24, np.int64), True, "quality.context has values of 2.24 and more"),
        ((-9, 9), np.zeros((64, 48), np.uint16), False, "layers that are not frozen to integers"),
    ],
)
def test_what_a_graph_in_integers_cannot_be_is_told(
    net: Any, limits: tuple[int, int], table: npt.NDArray[Any], frozen: bool, message: str
):
    source, layer = _source(net), ExactConv(24, 48, relu=False)
    if frozen:
        layer.freeze(torch.zeros(24).double(), 9, out_exponent=torch.zeros(48).double())
    inputs = (TensorSpec("latent", 24, 16), TensorSpec("bias", 48, 0))
    graph = SourceGraph("context", layer, inputs, (TensorSpec("distribution", 48, 16),), (limits,))
    model = torch.nn.ModuleList([net, layer.half().float()])
    with pytest.raises(InputError, match=message):
        check_source(replace(source, model=model, graphs=(graph,), tables={"quality.context": table}))


def test_tiles_of_a_network_that_reaches_upwards_give_the_same_file(net: Any):
    """A synthesis and a context whose last layer is high and narrow."""

    class Higher(torch.nn.Module):
        def __init__(self, network: torch.nn.Module, channels: int) -> None:
            super().__init__()
            self.network = network
            self.high = torch.nn.Conv2d(channels, channels, (9, 1), padding=(4, 0), groups=channels)
            torch.nn.init.constant_(self.high.weight, 1 / 8)

        def forward(self, x: Any) -> Any:
            return self.high(self.network(x))

    torch.manual_seed(1)
    source = _source(net)
    networks = {"context": (source.graphs[2].network, 48), "synthesis": (net.g_s, 3)}
    higher = {role: Higher(*given).half().float() for role, given in networks.items()}
    graphs = tuple(replace(x, network=higher.get(x.role, x.network)) for x in source.graphs)
    model = torch.nn.ModuleList([net, *higher.values()])
    bundle = guarded(build_bundle(replace(source, model=model, graphs=graphs), {}), side=128)
    assert {graph.role: graph.halo for graph in bundle.manifest.graphs}["context"] == 3
    image = random_images(320)[2]
    whole, tiled = (Codec(bundle, "ort", BackendOptions(threads=1), tile) for tile in (None, 64))
    data = whole.encode(image, 0)
    pictures = [codec.decode(data).image.astype(int) for codec in (whole, tiled)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.parametrize("constant", ["peak", "count", "hidden"])
def test_any_constant_that_a_network_computes_with_gives_another_id(net: Any, constant: str):
    class Scaled(torch.nn.Module):
        def __init__(self, value: int) -> None:
            super().__init__()
            number = torch.tensor(value) if constant == "count" else torch.tensor(float(value))
            self.register_buffer(constant, number, persistent=constant != "hidden")

    source = _source(net)
    assert bundle_id(replace(source, model=Scaled(1)), {}) != bundle_id(replace(source, model=Scaled(3)), {})


def test_half_precision_has_resizing_and_masks(net: Any):
    class Synthesis(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g_s = net.g_s

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.interpolate(x[:, :, ::2, ::2], scale_factor=2.0)
            return self.g_s(x * (x > 0))

    source = _source(net)
    graphs = (*source.graphs[:3], replace(source.graphs[3], network=Synthesis()))
    bundle = build_bundle(replace(source, graphs=graphs), {}, half=True)
    assert bundle.manifest.precision == "fp16"


def test_a_gain_may_be_computed_from_the_level(net: Any):
    class Gain(torch.nn.Module):
        def forward(self, level: Any) -> Any:
            return 1 + level

    class Synthesis(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g_s = net.g_s

        def forward(self, y: Any, gain: Any) -> Any:
            return self.g_s(y * gain)

    source = _source(net)
    level, gain = TensorSpec("level", 24, 0), TensorSpec("gain", 24, 0)
    last = source.graphs[3]
    graphs = (
        *source.graphs[:3], SourceGraph("gain", Gain(), (level,), (gain,)),
        replace(last, network=Synthesis(), inputs=(*last.inputs, gain)),
    )  # fmt: skip
    *known, draw = source.decode
    decode = (*known, Step("run", "gain", ("quality.level",), ("gain",)), replace(draw, inputs=(*draw.inputs, "gain")))
    tables = {**source.tables, "quality.level": np.linspace(0, 1, 64, dtype=np.float32)[:, None].repeat(24, axis=1)}
    bundle = build_bundle(replace(source, graphs=graphs, decode=decode, preview=decode, tables=tables), {})
    whole, tiled = (Codec(bundle, "ort", BackendOptions(threads=1), tile) for tile in (None, 64))
    data = {level: whole.encode(_image(), level) for level in (0, 63)}
    assert np.abs(whole.decode(data[0]).image.astype(int) - tiled.decode(data[0]).image).max() <= 1
    assert (whole.decode(data[0]).image != whole.decode(data[63]).image).any()
