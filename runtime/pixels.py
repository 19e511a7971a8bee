"""Between images and the tensors that graphs read and write."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from condic.runtime.manifest import TensorSpec
from condic.runtime.tiles import Region

Pixels = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32]

IMAGE = TensorSpec("image", 3, 1)
"""What every codec starts from and ends with."""


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
