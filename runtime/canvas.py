"""The decoded image as it fills up, tile by tile: whole, a rectangle of it, or reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from condic.errors import InputError, is_whole
from condic.runtime.arrays import Pixels, Tensor
from condic.runtime.bitstream import Flags
from condic.runtime.pictures import grey_of
from condic.runtime.pixels import as_pixels
from condic.runtime.tiles import Region

REDUCTIONS = (8, 16, 32)
"""Sides of the blocks of pixels that a reduced preview has one pixel for."""


@dataclass(frozen=True)
class Rectangle:
    """Pixels of an image: columns from `left` and rows from `top` on."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def within(cls, wanted: Sequence[int] | None, width: int, height: int) -> Rectangle:
        """What is wanted, (left, top, width, height), of an image; None is all of it. Raises InputError."""
        if wanted is None:
            return cls(0, 0, width, height)
        numbers = tuple(wanted) if isinstance(wanted, Sequence) or getattr(wanted, "ndim", 0) == 1 else ()
        if len(numbers) != 4 or not all(map(is_whole, numbers)):
            raise InputError(f"region {wanted!r} is not left, top, width, height in pixels")
        result = cls(*map(int, numbers))
        if not (0 <= result.left < result.left + result.width <= width
                and 0 <= result.top < result.top + result.height <= height):  # fmt: skip
            raise InputError(
                f"region {','.join(map(str, numbers))} (left, top, width, height) does not lie within the image of "
                f"{width}x{height}"
            )
        return result

    def region(self, alignment: int) -> Region:
        """The smallest region that covers it."""
        return Region(
            self.top // alignment, -(-(self.top + self.height) // alignment),
            self.left // alignment, -(-(self.left + self.width) // alignment),
        )  # fmt: skip

    def reduced(self, divisor: int) -> Rectangle:
        """The rectangle of an image whose pixels stand for `divisor` x `divisor` pixels, from corner to corner."""
        right, bottom = -(-(self.left + self.width) // divisor), -(-(self.top + self.height) // divisor)
        left, top = self.left // divisor, self.top // divisor
        return Rectangle(left, top, right - left, bottom - top)


class Canvas:
    """An image to draw on, uint8 [H, W] or [H, W, 2..4].

    `wanted` is the rectangle of the image that it holds. With a `reduction` of n it has a pixel for each block of n x n
    pixels of that: their mean, rounded half up.
    """

    def __init__(self, wanted: Rectangle, flags: Flags, alignment: int, reduction: int = 1) -> None:
        """An empty one. `reduction` divides the alignment."""
        self.wanted = wanted
        self._grey, self._alignment, self._reduction = bool(flags & Flags.GREY), alignment, reduction
        self._colours = 1 if self._grey else 3
        channels = self._colours + bool(flags & Flags.ALPHA)
        self._pixels = np.empty((-(-wanted.height // reduction), -(-wanted.width // reduction), channels), np.uint8)

    def draw(self, tensor: Tensor, region: Region) -> None:
        """Draws colour over a region: float32 [1, 3, h, w] around 0..1, rounded and clipped."""
        row, column = region.top * self._alignment, region.left * self._alignment
        top, left = max(row, self.wanted.top), max(column, self.wanted.left)
        bottom = min(region.bottom * self._alignment, self.wanted.top + self.wanted.height)
        right = min(region.right * self._alignment, self.wanted.left + self.wanted.width)
        rgb = as_pixels(tensor[0, :, top - row : bottom - row, left - column : right - column])
        self._put(grey_of(rgb) if self._grey else rgb, top - self.wanted.top, left - self.wanted.left)

    def draw_pixels(self, pixels: Pixels) -> None:
        """Draws the colour of the whole image, uint8 [H, W, 3], or [H, W, 1] if grey."""
        x = self.wanted
        self._put(pixels[x.top : x.top + x.height, x.left : x.left + x.width], 0, 0)

    def draw_alpha(self, alpha: Pixels) -> None:
        """Draws the alpha plane of the whole image, uint8 [H, W]."""
        x = self.wanted
        part = alpha[x.top : x.top + x.height, x.left : x.left + x.width, None]
        self._pixels[:, :, self._colours :] = reduced(part, self._reduction)

    def _put(self, colours: Pixels, row: int, column: int) -> None:
        """Pixels in the wanted part, from a row and column of it on."""
        part = reduced(colours, self._reduction)
        top, left = row // self._reduction, column // self._reduction
        self._pixels[top : top + part.shape[0], left : left + part.shape[1], : self._colours] = part

    def image(self) -> Pixels:
        """What has been drawn: uint8 [H, W] if grey without alpha, else [H, W, 2..4]."""
        return self._pixels[:, :, 0] if self._pixels.shape[2] == 1 else self._pixels


def reduced(pixels: Pixels, reduction: int) -> Pixels:
    """Means of blocks of `reduction` x `reduction` pixels, rounded half up; of what is there of them at the borders."""
    if reduction == 1:
        return pixels
    height, width = pixels.shape[:2]
    rows, columns = np.arange(0, height, reduction), np.arange(0, width, reduction)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32), columns, axis=1)
    counts = np.diff(rows, append=height)[:, None, None] * np.diff(columns, append=width)[None, :, None]
    means: Pixels = ((2 * sums + counts) // (2 * counts)).astype(np.uint8)
    return means
