"""Tiles: whatever their size, the same latents, and the same pictures within a grey level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from condic.errors import BundleError
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.manifest import WHOLE, TensorSpec
from condic.runtime.tiles import Evaluation, Region, _as_int16

Drawing = Callable[..., np.ndarray]


@pytest.fixture
def picture(drawing: Drawing) -> np.ndarray:
    return drawing(390, 530)


@pytest.mark.parametrize("tile", [128, 256, 384])
def test_a_tiled_decoder_gives_the_picture_within_a_grey_level(
    bundle: Bundle, codec: Codec, picture: np.ndarray, tile: int
) -> None:
    data = codec.encode(picture, 50)
    whole, tiled = (c.decode(data, latents=True) for c in (codec, Codec(bundle, tile=tile)))
    assert tiled.latents_sha256() == whole.latents_sha256()
    assert np.abs(tiled.image.astype(int) - whole.image).max() <= 1


def test_a_tiled_encoder_writes_a_file_of_the_same_quality(bundle: Bundle, codec: Codec, picture: np.ndarray) -> None:
    whole, tiled = codec.encode(picture, 50), Codec(bundle, tile=128).encode(picture, 50)
    assert abs(len(whole) - len(tiled)) <= 0.002 * len(whole) + 8
    assert np.abs(codec.decode(whole).image.astype(int) - codec.decode(tiled).image).mean() < 0.1


def test_tiles_of_the_shipped_model_match_the_whole(shipped_bundle: Bundle, picture: np.ndarray) -> None:
    codec = Codec(shipped_bundle)
    data = codec.encode(picture, 40)
    tiled = Codec(shipped_bundle, tile=128).decode(data, latents=True)
    whole = codec.decode(data, latents=True)
    assert tiled.latents_sha256() == whole.latents_sha256()
    assert np.abs(tiled.image.astype(int) - whole.image).max() <= 1


def test_without_halos_the_seams_would_show(bundle: Bundle, codec: Codec, picture: np.ndarray) -> None:
    float_graphs_blind = tuple(
        replace(graph, halo=0) if graph.precision == "float" else graph for graph in bundle.manifest.graphs
    )
    blind = replace(bundle, manifest=replace(bundle.manifest, graphs=float_graphs_blind))
    data = codec.encode(picture, 50)
    seams = Codec(blind, tile=128).decode(data).image
    assert np.abs(seams.astype(int) - codec.decode(data).image).max() > 1


def test_the_tiles_that_meet_a_region_cover_it_once(bundle: Bundle) -> None:
    evaluation = Evaluation(bundle.manifest, lambda role, inputs: [], 1024, 1280, tile=384)
    for within in (evaluation.whole, Region(1, 5, 2, 9)):
        times = np.zeros((8, 10), int)
        for tile in evaluation.tiles(within):
            times[tile.top : tile.bottom, tile.left : tile.right] += 1
            assert times[within.top : within.bottom, within.left : within.right].any(), "a tile that was not needed"
        assert times.max() == 1
        assert (times[within.top : within.bottom, within.left : within.right] == 1).all()
    assert len(list(evaluation.tiles(Region(3, 6, 0, 3)))) == 1
    assert list(evaluation.tiles(Region(7, 8, 8, 10))) == [Region(6, 8, 6, 9), Region(6, 8, 9, 10)]


@pytest.mark.parametrize(("halo", "tile", "tiles"), [(0, 64, 12), (WHOLE, 128, 1)])
def test_a_tile_is_no_smaller_than_the_alignment_and_whole_for_graphs_that_need_it(
    bundle: Bundle, halo: int, tile: int, tiles: int
) -> None:
    manifest = replace(bundle.manifest, graphs=tuple(replace(x, halo=halo) for x in bundle.manifest.graphs))
    evaluation = Evaluation(manifest, lambda role, inputs: [], 384, 512, tile=tile)
    assert len(list(evaluation.tiles(evaluation.whole))) == tiles


@pytest.mark.parametrize("tile", [None, 128, 256])
def test_tiles_are_put_together_and_a_single_one_is_not_copied(bundle: Bundle, tile: int | None) -> None:
    (step,) = (x for x in bundle.manifest.encode if "prior.y" in x.outputs)
    (latent,) = bundle.manifest.graph(step.target).outputs
    image = np.random.default_rng(4).random((1, 3, 384, 512), np.float32)
    made: list[np.ndarray] = []

    def every_32nd_pixel(_: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        made.append(inputs[0][:, :1, ::32, ::32].repeat(latent.channels, axis=1))
        return [made[-1]]

    evaluation = Evaluation(bundle.manifest, every_32nd_pixel, 384, 512, tile=tile)
    evaluation.sources["image"] = lambda region: image[(..., *region.slices(128))]
    evaluation.give("quality.prior_gain", np.ones((1, latent.channels, 1, 1), np.float32))
    evaluation.note(step)
    assert np.array_equal(evaluation.keep("prior.y"), image[:, :1, ::32, ::32].repeat(latent.channels, axis=1))
    assert any(evaluation.keep("prior.y") is x for x in made) == (tile is None)


def test_what_has_no_extent_is_the_same_in_every_tile(bundle: Bundle) -> None:
    (step,) = (x for x in bundle.manifest.encode if "prior.y" in x.outputs)
    row = TensorSpec("prior.y", 5, 0)
    graphs = tuple(replace(x, outputs=(row,)) if x.role == step.target else x for x in bundle.manifest.graphs)
    row_of_ones = np.ones((1, 5, 1, 1), np.float32)
    evaluation = Evaluation(
        replace(bundle.manifest, graphs=graphs), lambda role, inputs: [row_of_ones], 256, 128, tile=128
    )
    for name in step.inputs:
        evaluation.give(name, row_of_ones)
    evaluation.note(step)
    assert evaluation.keep("prior.y") is row_of_ones


def test_cutting_respects_strides_and_origins() -> None:
    tensor = np.arange(16 * 24, dtype=np.float32).reshape(1, 1, 16, 24)
    origin, region = Region(1, 3, 2, 5), Region(2, 3, 3, 5)
    cut = region.cut(tensor, TensorSpec("y", 1, 16), 128, origin)
    assert np.array_equal(cut, tensor[:, :, 8:16, 8:24])
    row = np.ones((1, 5, 1, 1), np.float32)
    assert region.cut(row, TensorSpec("gain", 5, 0), 128, origin) is row


@pytest.mark.parametrize("preset", ["t", "s"])
def test_every_halo_covers_what_its_graph_depends_on(
    preset: str, bundle: Bundle, shipped_bundle: Bundle, open_setting: Callable[[str, str], Codec]
) -> None:
    """A row of windows: what changes in the last one is not seen in the first, a halo and one window away."""
    chosen = bundle if preset == "t" else shipped_bundle
    codec, generator = open_setting(preset, "ort-1-thread"), np.random.default_rng(2)
    unit = chosen.manifest.alignment
    for graph in chosen.manifest.graphs:
        shapes = [(unit // x.stride, unit // x.stride * (graph.halo + 2)) if x.stride else (1, 1) for x in graph.inputs]
        inputs = [
            generator.integers(0, 9, (1, x.channels, *shape)).astype(np.float32)
            for x, shape in zip(graph.inputs, shapes, strict=True)
        ]
        before = codec.graphs.run(graph.role, inputs)
        for x, spec in zip(inputs, graph.inputs, strict=True):
            if spec.stride:
                x[..., -unit // spec.stride :] += 5
        after = codec.graphs.run(graph.role, inputs)
        for a, b, spec in zip(before, after, graph.outputs, strict=True):
            first = unit // spec.stride
            assert np.allclose(a[..., :first], b[..., :first], rtol=1e-4, atol=1e-4), graph.role
            assert not np.allclose(a[..., -first:], b[..., -first:], rtol=1e-4, atol=1e-4), graph.role


def test_a_preview_in_tiles_is_the_same(bundle: Bundle, codec: Codec, picture: np.ndarray) -> None:
    data = codec.encode(picture, 45)
    whole, tiled = codec.preview(data).image, Codec(bundle, tile=128).preview(data).image
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_a_region_grows_as_far_as_the_image_goes() -> None:
    whole = Region(0, 4, 0, 6)
    assert Region(1, 2, 5, 6).grown(1, whole) == Region(0, 3, 4, 6)
    assert Region(1, 2, 5, 6).grown(9, whole) == whole


@pytest.mark.parametrize("value", [0.25, 1000.5, -0.4])
def test_exact_tensors_that_are_not_whole_numbers_are_refused(value: float) -> None:
    with pytest.raises(BundleError, match="more than 16-bit integers"):
        _as_int16(np.full((1, 1, 1, 1), value, np.float32), "x")
