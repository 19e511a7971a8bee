"""condic-export from end to end: preset t's weights give preset t's bundle, in either precision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.codec import Codec

for library in ("torch", "onnx", "onnxscript", "onnxruntime", "rich"):
    pytest.importorskip(library)

import onnx  # noqa: E402
import torch  # noqa: E402

from condic.errors import InputError  # noqa: E402
from condic.export.cli import main  # noqa: E402

EXACT = ["prior_context_1", "prior_context_2", "prior_context_3", "hyper_synthesis"] + [
    f"context_{k}" for k in range(4)
]


def export(*words: object) -> int:
    """The exit code of condic-export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["condic-export", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Callable[..., Path]:
    """`exported()` and `exported("--fp16")`: the path of preset t's bundle, exported now."""
    done: dict[tuple[str, ...], Path] = {}

    def run(*words: str) -> Path:
        if words not in done:
            out = tmp_path_factory.mktemp("export") / ("t.condic" if not words else "folder")
            weights = data_folder / "dcic-sgp-t.safetensors"
            assert export("--model", "dcic-sgp", "--preset", "t", "--weights", weights, "--out", out, *words) == 0
            done[words] = out
        return done[words]

    return run


@pytest.fixture(scope="module")
def full(exported: Callable[..., Path]) -> Bundle:
    return read_bundle(exported())


@pytest.fixture(scope="module")
def half(exported: Callable[..., Path]) -> Bundle:
    return read_bundle(exported("--fp16"))


@pytest.mark.slow
def test_an_export_has_the_id_of_the_committed_bundle(full: Bundle, bundle: Bundle) -> None:
    assert full.manifest.bundle_id == bundle.manifest.bundle_id
    assert full.manifest.precision == "fp32"


@pytest.mark.slow
def test_exported_exact_graphs_and_tables_are_the_committed_ones(full: Bundle, bundle: Bundle) -> None:
    assert full.tables.keys() == bundle.tables.keys()
    assert all(np.array_equal(full.tables[name], bundle.tables[name]) for name in bundle.tables)
    for role in EXACT:
        assert full.manifest.graph(role).known_answer == bundle.manifest.graph(role).known_answer
        ours, theirs = (constants_of(b.graphs[role]) for b in (full, bundle))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def constants_of(model: bytes) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}


@pytest.mark.slow
def test_half_precision_has_the_same_id_and_the_same_exact_graphs(half: Bundle, bundle: Bundle) -> None:
    assert half.manifest.bundle_id == bundle.manifest.bundle_id
    assert half.manifest.precision == "fp16"
    for role in EXACT:
        assert half.manifest.graph(role).known_answer == bundle.manifest.graph(role).known_answer
        ours, theirs = (constants_of(b.graphs[role]) for b in (half, bundle))
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_half_and_full_precision_decode_each_other_s_files(
    half: Bundle, bundle: Bundle, drawing: Callable[..., np.ndarray]
) -> None:
    codecs = [Codec(b, "ort", BackendOptions(threads=1)) for b in (bundle, half)]
    image = drawing(150, 200)
    for writer in codecs:
        quantised = writer.host.quantise(image, 50)
        data = writer.pack(quantised)
        pictures = []
        for reader in codecs:
            decoded = reader.decode(data, latents=True)
            for latent in quantised.latents:
                assert np.array_equal(decoded.latents[latent.name], latent.integers)
            pictures.append(decoded.image.astype(float))
        error = np.mean((pictures[0] - pictures[1]) ** 2)
        assert error < 255**2 / 10**4.5, "at least 45 dB between the two"


@pytest.mark.slow
def test_half_precision_runs_float_graphs_in_float16_with_fused_attention(half: Bundle) -> None:
    for graph in half.manifest.graphs:
        model = onnx.load_from_string(half.graphs[graph.role])
        types = {t.data_type for t in model.graph.initializer if np.prod(t.dims) > 64}
        attention = sum(node.op_type == "Attention" for node in model.graph.node)
        assert attention == (1 if graph.role in ("analysis", "synthesis") else 0)
        assert (onnx.TensorProto.FLOAT16 in types) == (graph.precision == "float")
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.slow
def test_full_precision_has_no_attention_nodes_and_small_files(
    full: Bundle, bundle_path: Path, exported: Callable[..., Path]
) -> None:
    for graph in full.manifest.graphs:
        model = onnx.load_from_string(full.graphs[graph.role])
        assert not any(node.op_type == "Attention" for node in model.graph.node)
        assert {x.domain: x.version for x in model.opset_import}[""] == 20
    assert exported().stat().st_size < 300_000


@pytest.mark.slow
def test_nothing_of_this_machine_is_in_a_bundle(full: Bundle, half: Bundle, data_folder: Path) -> None:
    home = str(data_folder.parents[1]).encode()
    for data in (*full.graphs.values(), *half.graphs.values(), full.manifest.to_json().encode()):
        assert home not in data
        assert b"site-packages" not in data
        assert b".py" not in data


def test_graphs_take_any_size(bundle: Bundle) -> None:
    for graph in bundle.manifest.graphs:
        model = onnx.load_from_string(bundle.graphs[graph.role])
        for value, spec in zip(model.graph.input, graph.inputs, strict=True):
            dims = value.type.tensor_type.shape.dim
            assert (value.name, dims[1].dim_value) == (spec.name, spec.channels)
            assert [d.HasField("dim_param") for d in dims[2:]] == [bool(spec.stride)] * 2


def test_weights_that_are_not_calibrated_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from condic.models.dcic_sgp import DcicSgp
    from condic.models.weights import save_weights

    save_weights(DcicSgp("t").state_dict(), tmp_path / "new.safetensors", {})
    refused(capfd, tmp_path, ["--weights", tmp_path / "new.safetensors"], "not calibrated")


def test_bad_weights_and_folders_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], data_folder: Path
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no weights at all")
    good = data_folder / "dcic-sgp-t.safetensors"
    refused(capfd, tmp_path, ["--weights", tmp_path / "bad.safetensors"], "bad.safetensors")
    refused(capfd, tmp_path, ["--weights", tmp_path / "none.safetensors"], "none.safetensors")
    refused(capfd, tmp_path, ["--weights", good, "--preset", "s"], "preset")
    refused(capfd, tmp_path, ["--preset", "b"], "no weights of dcic-sgp preset b are shipped")
    refused(capfd, tmp_path, ["--weights", good, "--out", tmp_path / "none" / "t.condic"], "no such folder")
    (tmp_path / "file").write_text("in the way")
    refused(capfd, tmp_path, ["--weights", good, "--preset", "huge"], "huge")
    refused(capfd, tmp_path, ["--weights", good, "--query", "condition"], "--query is for published checkpoints")
    if Path("/proc/self").exists():
        refused(capfd, tmp_path, ["--weights", good, "--out", "/proc/condic"], "/proc/condic: No such file")


def refused(capfd: pytest.CaptureFixture[str], folder: Path, words: list[object], message: str) -> None:
    before = sorted(folder.rglob("*"))
    defaults = {"--model": "dcic-sgp", "--preset": "t", "--out": folder / "t.condic"}
    for name, value in defaults.items():
        if name not in words:
            words += [name, value]
    capfd.readouterr()
    assert export(*words) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert captured.err.startswith("condic-export: ")
    assert message in captured.err
    assert sorted(folder.rglob("*")) == before


def test_a_graph_that_exceeds_half_precision_inside_is_refused(data_folder: Path) -> None:
    """Also where ONNX Runtime computes in float32 and nothing shows in the result."""
    from condic.export.build import _stored, _verify
    from condic.export.dcic_sgp_graphs import source_graphs
    from condic.models.blocks import ResidualBlock
    from condic.models.codecs import build_codec
    from condic.models.weights import load_weights

    model = build_codec("dcic-sgp", "t").eval()
    load_weights(model, data_folder / "dcic-sgp-t.safetensors")
    graph = next(x for x in source_graphs(model) if x.role == "hyper_analysis")
    assert _verify(graph, 128, _stored(graph, 128, half=True), half=True) < 1e-3
    block = next(x for x in model.hyper_analysis.modules() if isinstance(x, ResidualBlock))
    with torch.no_grad():
        block.expand.weight *= 2**17
        block.expand.bias *= 2**17
        block.project.weight /= 2**17
    with pytest.raises(InputError, match=r"graph hyper_analysis: tensor .* is beyond half precision; export without"):
        _verify(graph, 128, _stored(graph, 128, half=True), half=True)
