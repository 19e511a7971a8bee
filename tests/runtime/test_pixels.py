"""Pixels to tensors and back."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from condic.runtime.pixels import PixelSource, as_pixels
from condic.runtime.tiles import Region


@pytest.mark.parametrize("height", [1, 31, 32, 33, 97])
def test_tensors_become_pixels_rounded_half_up_and_clipped(height: int) -> None:
    generator = np.random.default_rng(height)
    whole = generator.uniform(-0.2, 1.2, (3, height + 2, 45)).astype(np.float32)
    whole[:, :, :3] = np.array([0.5, 126.5, 254.5], np.float32) / np.float32(255)
    tensor = whole[:, 1:-1, 1:44]
    scaled = tensor * np.float32(255) + np.float32(0.5)
    expected = np.clip(np.floor(scaled), 0, 255).astype(np.uint8)
    pixels = as_pixels(tensor)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.moveaxis(expected, 0, 2))


def test_every_pixel_comes_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 128, 3)
    tensor = PixelSource(pixels, 128).tensor(Region(0, 1, 0, 1))
    assert tensor.shape == (1, 3, 128, 128)
    assert np.array_equal(as_pixels(tensor[0])[:2], pixels)


def test_conversion_takes_no_memory_but_the_result() -> None:
    tensor = np.zeros((3, 1024, 1024), np.float32)
    tracemalloc.start()
    try:
        pixels = as_pixels(tensor)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * pixels.nbytes
    finally:
        tracemalloc.stop()
