"""Parts of an image, and small images: the pixels of the whole, from less work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import condic
from condic.errors import InputError
from condic.runtime.bitstream import Flags, Header
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.timings import Timings

Drawing = Callable[..., np.ndarray]
HEIGHT, WIDTH = 301, 390
REGIONS = {
    "all": (0, 0, WIDTH, HEIGHT),
    "one pixel, first": (0, 0, 1, 1),
    "one pixel, last": (WIDTH - 1, HEIGHT - 1, 1, 1),
    "one pixel on a border of tiles": (128, 256, 1, 1),
    "within a tile": (130, 140, 33, 57),
    "across tiles": (100, 50, 177, 131),
    "last row": (0, HEIGHT - 1, WIDTH, 1),
    "last column": (WIDTH - 1, 0, 1, HEIGHT),
    "a tile exactly": (128, 128, 128, 128),
}


@pytest.fixture(scope="module")
def tiled(bundle: Bundle) -> Codec:
    return Codec(bundle, "ort", tile=128)


@pytest.fixture(scope="module")
def files(codec: Codec, drawing: Drawing) -> dict[int, bytes]:
    """A file for each number of channels."""
    return {channels: codec.encode(drawing(HEIGHT, WIDTH, channels), 40) for channels in (1, 2, 3, 4)}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_region_has_the_very_pixels_of_the_whole(tiled: Codec, files: dict[int, bytes], channels: int) -> None:
    whole = tiled.decode(files[channels], latents=True)
    for name, (left, top, width, height) in REGIONS.items():
        part = tiled.decode(files[channels], region=(left, top, width, height), latents=True)
        assert np.array_equal(part.image, whole.image[top : top + height, left : left + width]), name
        assert part.latents_sha256() == whole.latents_sha256()


def test_a_region_of_an_image_in_one_tile_has_the_very_pixels_too(codec: Codec, files: dict[int, bytes]) -> None:
    whole = codec.decode(files[3]).image
    for left, top, width, height in REGIONS.values():
        part = codec.decode(files[3], region=(left, top, width, height)).image
        assert np.array_equal(part, whole[top : top + height, left : left + width])


def test_a_region_of_the_shipped_model_has_the_very_pixels(shipped_bundle: Bundle, drawing: Drawing) -> None:
    codec = Codec(shipped_bundle, "ort", tile=128)
    data = codec.encode(drawing(200, 300), 40)
    whole = codec.decode(data).image
    assert np.array_equal(codec.decode(data, region=(120, 100, 20, 100)).image, whole[100:200, 120:140])


def test_synthesis_runs_only_for_tiles_that_have_a_share(tiled: Codec, files: dict[int, bytes]) -> None:
    class Counting(Timings):
        def __init__(self) -> None:
            super().__init__()
            self.entered: list[str] = []

        def stage(self, name: str):  # type: ignore[no-untyped-def]
            self.entered.append(name)
            return super().stage(name)

    for region, tiles in (((130, 140, 33, 57), 1), ((100, 50, 177, 131), 6), (None, 12)):
        timings = Counting()
        tiled.decode(files[3], timings, region=region)
        assert timings.entered.count("synthesis") == tiles


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, WIDTH + 1, 1), (WIDTH, 0, 1, 1), (-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (0, 0, -5, 5),
        (0, HEIGHT, 1, 1), (10**20, 0, 1, 1),
    ],
)  # fmt: skip
def test_a_region_outside_the_image_is_refused(codec: Codec, files: dict[int, bytes], region: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"does not lie within the image of 390x301") as caught:
        codec.decode(files[3], region=region)
    assert ",".join(map(str, region)) in str(caught.value)


@pytest.mark.parametrize("region", [(1, 2, 3), (0.5, 0, 1, 1), "1,2,3,4", "1234", (), [1, [2, 3], 4, 5]])
def test_what_is_no_region_is_refused(codec: Codec, files: dict[int, bytes], region: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="is not left, top, width, height"):
        codec.decode(files[3], region=region)


def test_a_reduction_that_would_cut_a_model_s_blocks_is_refused(bundle: Bundle, files: dict[int, bytes]) -> None:
    """Tiles would begin amid the pixels whose mean is taken."""
    odd = Codec(replace(bundle, manifest=replace(bundle.manifest, alignment=24)), "ort")
    with pytest.raises(InputError, match="reduction 16: this model computes in blocks of 24 pixels"):
        odd.preview(files[3], reduction=16)


def block_means(image: np.ndarray, side: int) -> np.ndarray:
    """Means of blocks, one by one."""
    rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
    result = np.empty((rows, columns, *image.shape[2:]), np.uint8)
    for r in range(rows):
        for c in range(columns):
            block = image[r * side : (r + 1) * side, c * side : (c + 1) * side]
            result[r, c] = np.floor(block.mean(axis=(0, 1), dtype=np.float64) + 0.5)
    return result


@pytest.mark.parametrize("reduction", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_reduced_preview_is_the_preview_in_blocks(
    tiled: Codec, files: dict[int, bytes], channels: int, reduction: int
) -> None:
    small = tiled.preview(files[channels], reduction=reduction)
    expected = block_means(tiled.preview(files[channels]).image, reduction)
    assert small.image.shape[:2] == (-(-HEIGHT // reduction), -(-WIDTH // reduction))
    assert np.array_equal(small.image, expected)


def test_the_smallest_image_has_a_reduced_preview(codec: Codec, drawing: Drawing) -> None:
    assert codec.preview(codec.encode(drawing(1, 1), 3), reduction=8).image.shape == (1, 1, 3)


def test_a_preview_that_is_smaller_by_itself_is_never_reduced_less(codec: Codec) -> None:
    header = Header(64, 48, 0, Flags.NONE, codec.bundle.id, 3)
    with pytest.raises(InputError, match="reduction 8: this model's preview is 16 times smaller by itself"):
        codec._canvas(header, 16, None, 8)
    assert codec._canvas(header, 16, None, 32).image().shape == (2, 2, 3)


@pytest.mark.parametrize("reduction", [0, -8, 2, 4, 64, 7, 8.0, True])
def test_other_reductions_are_refused(codec: Codec, files: dict[int, bytes], reduction: int) -> None:
    with pytest.raises(InputError, match=f"reduction {reduction}: give one of 8, 16, 32"):
        codec.preview(files[3], reduction=reduction)


def test_the_python_functions_give_parts_too(bundle_path: Path, files: dict[int, bytes]) -> None:
    whole = condic.decode(files[3], bundle_path, "ort")
    coded = condic.open(files[3], bundle_path, "ort")
    assert np.array_equal(condic.decode(files[3], bundle_path, "ort", region=(5, 6, 7, 8)), whole[6:14, 5:12])
    assert np.array_equal(coded.decode(tuple(np.array([5, 6, 7, 8]))).image, whole[6:14, 5:12])
    assert coded.preview(8).image.shape == (38, 49, 3)


def test_condic_run_writes_parts(program: Callable[..., Any], tmp_path: Path, files: dict[int, bytes]) -> None:
    (tmp_path / "a.cdic").write_bytes(files[4])
    for arguments in (["whole.png"], ["part.png", "--region", "100,50,177,131"], ["small.png", "--scale", "1/16"]):
        ended = program("decode", "a.cdic", *arguments)
        assert (ended.code, ended.err) == (0, "")
    assert b"small.png: 25x19" in ended.out
    whole, part, small = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("whole", "part", "small"))
    assert np.array_equal(part, whole[50:181, 100:277])
    assert small.shape == (19, 25, 4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--region", "1,2,3"], "'1,2,3' is not X,Y,W,H"),
        (["--region", "a,b,c,d"], "is not X,Y,W,H"),
        (
            ["--region", "0,0,391,1"],
            "a.cdic: region 0,0,391,1 (left, top, width, height) does not lie within the image",
        ),
        (["--region", f"0,0,{10**20},1"], "does not lie within the image of 390x301"),
        (["--scale", "1/2"], "'1/2' is not one of '1/8', '1/16', '1/32'"),
        (["--scale", "1/8", "--region", "0,0,1,1"], "--region and --scale exclude each other"),
    ],
)
def test_bad_regions_and_scales_are_refused_in_one_line(
    program: Callable[..., Any], tmp_path: Path, files: dict[int, bytes], options: list[str], reason: str
) -> None:
    (tmp_path / "a.cdic").write_bytes(files[3])
    ended = program("decode", "a.cdic", "out.png", *options)
    assert ended.code == 2
    assert reason in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_exact_graphs_that_give_wide_numbers_are_refused(bundle: Bundle, drawing: Drawing) -> None:
    """Tensors of exact graphs are kept in 16 bits: one that does not fit would silently change between backends."""
    graphs = tuple(replace(g, precision="exact") if g.role == "prior_synthesis" else g for g in bundle.manifest.graphs)
    lying = Codec(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)), "ort")
    lying.graphs._runners.update({g.role: Codec(bundle, "ort").graphs.load(g.role) for g in graphs})
    with pytest.raises(Exception, match="16-bit integers"):
        lying.encode(drawing(100, 100), 3)
