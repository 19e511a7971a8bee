"""Tiles: whatever their size, the same latents, and the same pictures within a grey level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.manifest import TensorSpec
from condic.runtime.tiles import Evaluation, Region

Drawing = Callable[..., np.ndarray]


@pytest.fixture
def picture(drawing: Drawing) -> np.ndarray:
    return drawing(390, 530)


@pytest.mark.parametrize("tile", [128, 256, 384])
def test_a_tiled_decoder_gives_the_picture_within_a_grey_level(
    bundle: Bundle, codec: Codec, picture: np.ndarray, tile: int
) -> None:
    data = codec.encode(picture, 50)
    whole, tiled = codec.decode(data), Codec(bundle, tile=tile).decode(data)
    assert tiled.latents_sha256() == whole.latents_sha256()
    assert np.abs(tiled.image.astype(int) - whole.image).max() <= 1


def test_a_tiled_encoder_writes_a_file_of_the_same_quality(bundle: Bundle, codec: Codec, picture: np.ndarray) -> None:
    whole, tiled = codec.encode(picture, 50), Codec(bundle, tile=128).encode(picture, 50)
    assert abs(len(whole) - len(tiled)) <= 0.002 * len(whole) + 8
    assert np.abs(codec.decode(whole).image.astype(int) - codec.decode(tiled).image).mean() < 0.1


def test_tiles_of_the_shipped_model_match_the_whole(shipped_bundle: Bundle, picture: np.ndarray) -> None:
    codec = Codec(shipped_bundle)
    data = codec.encode(picture, 40)
    tiled = Codec(shipped_bundle, tile=128).decode(data)
    whole = codec.decode(data)
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


def test_tiles_cover_a_region_once(bundle: Bundle) -> None:
    evaluation = Evaluation(bundle.manifest, lambda role, inputs: [], 1024, 1280, tile=384)
    for within in (evaluation.whole, Region(1, 5, 2, 9)):
        times = np.zeros((8, 10), int)
        for tile in evaluation.tiles(within):
            times[tile.top : tile.bottom, tile.left : tile.right] += 1
        inside = np.zeros_like(times)
        inside[within.top : within.bottom, within.left : within.right] = 1
        assert np.array_equal(times, inside)


def test_cutting_respects_strides_and_origins() -> None:
    tensor = np.arange(16 * 24, dtype=np.float32).reshape(1, 1, 16, 24)
    origin, region = Region(1, 3, 2, 5), Region(2, 3, 3, 5)
    cut = region.cut(tensor, TensorSpec("y", 1, 16), 128, origin)
    assert np.array_equal(cut, tensor[:, :, 8:16, 8:24])
    row = np.ones((1, 5, 1, 1), np.float32)
    assert region.cut(row, TensorSpec("gain", 5, 0), 128, origin) is row
