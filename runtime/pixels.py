"""Between images and the tensors that graphs read and write."""

from __future__ import annotations

import numpy as np

from condic.runtime.arrays import Pixels, Tensor
from condic.runtime.tiles import Region

_ROWS = 32
"""Rows of pixels that are converted at a time: what is made of them on the way stays in the processor's cache."""


class PixelSource:
    """An image as the tensor that graphs read: uint8 [H, W, 3] to float32 in 0..1, padded by repeating the edge."""

    def __init__(self, rgb: Pixels, alignment: int) -> None:
        self._rgb, self._alignment = rgb, alignment

    def tensor(self, region: Region) -> Tensor:
        """float32 [1, 3, h, w] over a region, which may reach into the padding below and right."""
        top, bottom, left, right = (x * self._alignment for x in (region.top, region.bottom, region.left, region.right))
        part = self._rgb[top:bottom, left:right]
        h, w = part.shape[:2]
        tensor = np.empty((1, 3, bottom - top, right - left), np.float32)
        np.multiply(part.transpose(2, 0, 1), np.float32(1 / 255), out=tensor[0, :, :h, :w])
        tensor[0, :, :h, w:] = tensor[0, :, :h, w - 1 : w]
        tensor[0, :, h:, :] = tensor[0, :, h - 1 : h, :]
        return tensor


def as_pixels(tensor: Tensor) -> Pixels:
    """Colours around 0..1, float32 [3, h, w], as pixels: uint8 [h, w, 3], rounded half up and clipped."""
    _, height, width = tensor.shape
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        rows = slice(top, top + _ROWS)
        scaled = tensor[:, rows] * np.float32(255)
        scaled += np.float32(0.5)
        np.clip(scaled, 0, 255, out=scaled)
        np.stack(scaled.astype(np.uint8), axis=-1, out=pixels[rows])
    return pixels
