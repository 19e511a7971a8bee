"""cic-sr's graphs: what presets of the authors' kind need beyond what preset t has."""

from __future__ import annotations

from dataclasses import astuple, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from condic.errors import InputError  # noqa: E402
from condic.export import guard  # noqa: E402
from condic.export.build import Row, build_bundle  # noqa: E402
from condic.export.cic_sr_graphs import describe  # noqa: E402
from condic.export.guard import Record, Replay, _measured, guarded, largest_differences, random_images  # noqa: E402
from condic.export.identity import bundle_id  # noqa: E402
from condic.models import cic_sr  # noqa: E402
from condic.models.cic_sr import CicSr  # noqa: E402
from condic.models.cic_sr_presets import ChunkSizes, CicSrPreset, HyperSizes, TransformSizes  # noqa: E402
from condic.models.quality import LevelTable  # noqa: E402
from condic.models.swinir import SwinIrSizes  # noqa: E402
from condic.runtime.backends import BackendOptions  # noqa: E402
from condic.runtime.bundle import Bundle, check_bundle, read_bundle  # noqa: E402
from condic.runtime.codec import Codec  # noqa: E402
from condic.runtime.manifest import Deltas, Graph, Guard, Latent, Manifest  # noqa: E402

PUBLISHED = CicSrPreset(
    alignment=256,
    lr=TransformSizes(4, (16, 16), (1, 2), (1, 2), (4, 4), 1.0, True),
    lr_hyper=HyperSizes(8, 8, kind="convolutions"),
    lr_chunks=ChunkSizes(1, 3, 4, 0, (8,), (3, 3), contiguous=True, refine=(((1, 1), 4), ((2,), 4), ((1,), 4))),
    sr=SwinIrSizes(12, (2,), (2,), 8, 2.0, "pixelshuffle"),
    main=TransformSizes(4, (16, 16), (2, 2), (1, 2), (4, 4), 1.0, True),
    hyper=HyperSizes(8, 8, (1, 2), (2, 1), 4, 4, 1.0),
    chunks=ChunkSizes(2, 3, 3, 3, (8,), (3, 3), contiguous=True),
    residual=False,
    separate=True,
)
"""The shape of preset `paper`, small: norms, quadrants, refined and windowed parameters, chains of their own."""


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> CicSr:
    monkeypatch.setitem(cic_sr.CIC_SR_PRESETS, "small-paper", PUBLISHED)
    torch.manual_seed(0)
    model = CicSr("small-paper", "image").eval()
    model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
    for codec in (model.lr, model.main):  # refined networks have four heads: widths of four or more
        assert codec.context.chunk_channels % 4 == 0
    return model


def test_a_published_model_fits_the_manifest(published: CicSr) -> None:
    source = describe(published)
    graphs = tuple(Graph(x.role, f"{x.role}.onnx", x.precision, x.inputs, x.outputs, 0, 0) for x in source.graphs)
    manifest = Manifest(
        source.name, source.preset, "0" * 64, source.alignment, len(source.scale_table), source.scale_table, 15, "fp32",
        graphs, source.latents, source.encode, source.decode, source.preview, source.options, source.large_preview,
    )  # fmt: skip
    check_bundle(Bundle(manifest, source.tables, {}, "test"))
    assert source.options == {"query": "image"}
    assert all(chunk.boxes[0].contiguous for latent in source.latents if latent.guard for chunk in latent.chunks)


def test_every_parameter_of_the_networks_is_in_one_graph(published: CicSr) -> None:
    held = [id(p) for graph in describe(published).graphs for p in graph.network.parameters()]
    tables = {id(p) for m in published.modules() if isinstance(m, LevelTable) for p in m.parameters()}
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in published.parameters()} - tables


@pytest.mark.timeout(1200)  # it takes 2 to 4 minutes on two cores
def test_a_published_model_becomes_a_bundle_whose_files_every_backend_reads(published: CicSr) -> None:
    begun: list[str] = []
    rows: list[Row] = []
    bundle = build_bundle(describe(published), {}, begin=begun.append, report=rows.append)
    bundle = guarded(bundle, begun.append, side=256)  # small, to save time
    roles = [graph.role for graph in bundle.manifest.graphs]
    assert [row.role for row in rows] == roles
    assert begun[: 2 * len(roles)] == [f"{what} {role}" for what in ("measuring", "exporting") for role in roles]
    assert all(row.error < 1e-3 for row in rows)
    backends = [name for name in ("ort", "torch", "openvino") if name == "ort" or find_spec(name)]
    for name in backends:
        assert any(line.startswith(f"measuring the guard: {name}") for line in begun[2 * len(roles) :])
    image = random_images(90)[1]
    encoder = Codec(bundle, "ort", BackendOptions(threads=1))
    quantised = encoder.host.quantise(image, 32)
    data = encoder.pack(quantised)
    for name in backends:
        latents = Codec(bundle, name, BackendOptions(threads=2)).decode(data, latents=True).latents
        for coded in quantised.latents:
            np.testing.assert_array_equal(latents[coded.name], coded.integers, err_msg=name)


def test_deltas_do_not_change_what_a_bundle_is_called(published: CicSr) -> None:
    source = replace(describe(published), model=torch.nn.Module())
    name = bundle_id(source, {})
    latents = tuple(
        x if x.guard is None else replace(x, guard=replace(x.guard, levels=(9,), deltas=(Deltas(0.1, 0.2, 0.3),)))
        for x in source.latents
    )
    assert bundle_id(replace(source, latents=latents), {}) == name
    other = _guarded(source.latents, mean_step=2)
    assert bundle_id(replace(source, latents=other), {}) != name
    assert bundle_id(replace(source, options={"query": "condition"}), {}) != name


def _guarded(latents: tuple[Latent, ...], **changes: float) -> tuple[Latent, ...]:
    return tuple(x if x.guard is None else replace(x, guard=replace(x.guard, **changes)) for x in latents)


def test_backends_further_apart_than_a_guard_is_good_for_are_refused() -> None:
    rule = Guard(4, 2, (0,), (Deltas(0.0, 0.0, 0.0),))
    assert _measured(rule, {9: Deltas(0.0625, 1e-9, 0.001)}).deltas == (Deltas(0.25, 1e-6, 0.004),)
    with pytest.raises(InputError, match=r"backends differ by 0\.063 of a step .*a guard is good for 0\.0625"):
        _measured(rule, {9: Deltas(0.01, 0.063, 0.0)})


def test_the_guard_is_measured_at_every_kind_of_level(data_folder: Path) -> None:
    source = read_bundle(data_folder / "cic-sr-t.condic")
    of_one_rate = {name: np.repeat(table[:1], 64, axis=0) if len(table) == 64 else table
                   for name, table in source.tables.items()}  # fmt: skip
    for tables, levels in ((source.tables, (0, 16, 32, 48, 63)), (of_one_rate, (0,))):
        bundle = guarded(replace(source, tables=tables), side=128)
        guards = [latent.guard for latent in bundle.manifest.latents if latent.guard]
        assert [guard.levels for guard in guards] == [levels, levels]
        assert len(set(guards[1].deltas)) == len(levels)  # numbers grow with the level, and their last bits with them


def test_differences_are_the_largest_of_all_images_and_backends(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, settings = read_bundle(data_folder / "cic-sr-t.condic"), guard._BACKENDS

    def measured(images: list[np.ndarray], *others: str) -> np.ndarray:
        chosen = {name: settings[name] for name in ("ort, 1 thread, as written", *others)}
        monkeypatch.setattr(guard, "_BACKENDS", chosen)
        found = largest_differences(bundle, images, lambda _: None, (32,))
        return np.array([astuple(deltas) for levels in found.values() for deltas in levels.values()])

    images, others = random_images(128)[1:3], ("ort, 1 thread", "torch")
    each = [measured([image], other) for image in images for other in others]
    np.testing.assert_array_equal(measured(images, *others), np.max(each, axis=0))


def test_a_backend_that_fails_at_an_operator_is_left_out(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.TorchBackend, "load", lambda *_: {}["Celu"])
    begun: list[str] = []
    bundle = read_bundle(data_folder / "cic-sr-t.condic")
    largest_differences(bundle, random_images(128)[:1], begun.append, (32,))
    assert begun
    assert not any("torch" in x for x in begun)


def test_a_difference_counts_in_either_direction() -> None:
    record = Record()
    codes = record.round(np.zeros(3), 0.1)
    replay = Replay(record)
    assert replay.round(np.array([0.5, 0.0, -0.7]), 0.1) is codes
    assert replay.differences == [0.7]


def test_images_to_measure_on_are_strong_and_have_the_spectrum_of_photographs() -> None:
    weak, strong, *blocks = random_images(64)
    for side, image in zip((8, 32), blocks, strict=True):
        assert image.shape == weak.shape
        assert set(image.flat) == {0, 255}
        assert np.array_equal(image, image[::side, ::side].repeat(side, axis=0).repeat(side, axis=1))
    assert weak.shape == strong.shape == (64, 128, 3)
    assert strong.std() > 2 * weak.std() > 40
    amplitude = np.abs(np.fft.rfft2(weak[:, :, 0].astype(float)))
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(128)[None])
    low = (frequency > 0) & (frequency < 0.25)
    slope, _ = np.polyfit(np.log(frequency[low]), np.log(amplitude[low]), 1)
    assert slope == pytest.approx(-1, abs=0.1)
