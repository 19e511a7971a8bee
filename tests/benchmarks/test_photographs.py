"""Sizes by name, and photographs scaled to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condic.benchmarks.photographs import find_photographs, parse_resolution, scaled
from condic.errors import InputError


@pytest.mark.parametrize(("text", "size"), [("720p", (1280, 720)), ("4K", (3840, 2160)), ("512x768", (512, 768))])
def test_sizes_have_names_or_are_width_by_height(text: str, size: tuple[int, int]):
    resolution = parse_resolution(text)
    assert (resolution.width, resolution.height) == size


@pytest.mark.parametrize("text", ["8k", "512", "x", "0x10", "70000x10"])
def test_other_sizes_are_refused(text: str):
    with pytest.raises(InputError, match=r"unknown resolution|no pixels|65535"):
        parse_resolution(text)


def test_without_a_folder_there_is_the_photograph_that_comes_with_condic():
    (path,) = find_photographs(None)
    with Image.open(path) as image:
        assert image.size == (600, 400)


def test_a_photograph_covers_the_size_and_is_turned_where_that_helps(tmp_path: Path):
    gradient = np.zeros((100, 300, 3), np.uint8)
    gradient[:, :, 0] = np.linspace(0, 255, 300).astype(np.uint8)
    Image.fromarray(gradient).save(tmp_path / "wide.png")
    pixels, factor = scaled(tmp_path / "wide.png", parse_resolution("50x150"))
    assert pixels.shape == (150, 50, 3)
    assert factor == 0.5
    assert abs(int(pixels[0, 25, 0]) - int(pixels[-1, 25, 0])) > 240
