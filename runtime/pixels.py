"""Between images and the tensors that graphs read and write."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from condic.errors import InputError, IntegrityError, StreamError
from condic.runtime.bitstream import Flags
from condic.runtime.manifest import TensorSpec
from condic.runtime.tiles import Region

Pixels = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32]

IMAGE = TensorSpec("image", 3, 1)
"""What every codec starts from and ends with."""


@dataclass(frozen=True)
class Picture:
    """An image taken apart: `rgb` uint8 [H, W, 3], `alpha` uint8 [H, W] or None, and whether it was grey."""

    rgb: Pixels
    alpha: Pixels | None
    grey: bool

    @property
    def flags(self) -> Flags:
        """The header's flags."""
        return (Flags.GREY if self.grey else Flags.NONE) | (Flags.NONE if self.alpha is None else Flags.ALPHA)


def as_picture(image: Any) -> Picture:
    """Takes uint8 arrays [H, W], [H, W, 1..4] (grey, grey+alpha, RGB, RGBA) or a PIL image. Raises InputError."""
    if isinstance(image, Image.Image):
        if image.mode.startswith("I;16"):  # Pillow's own conversion clips instead of scaling
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        grey = image.mode in ("1", "L", "LA", "I", "F")
        target = ("LA" if has_alpha else "L") if grey else ("RGBA" if has_alpha else "RGB")
        image = np.asarray(image.convert(target))
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise InputError(f"image is a {type(image).__name__}, not an array: {error}") from error
    if array.dtype != np.uint8:
        raise InputError(f"image has dtype {array.dtype}; give uint8 values 0..255")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or not array.size:
        raise InputError(f"image has shape {np.shape(image)}; give [H, W] or [H, W, 1..4] with at least one pixel")
    channels = array.shape[2]
    alpha = array[:, :, -1] if channels in (2, 4) else None
    rgb = np.repeat(array[:, :, :1], 3, axis=2) if channels < 3 else array[:, :, :3]
    return Picture(rgb, alpha, channels < 3)


def as_array(picture: Picture) -> Pixels:
    """The picture as it was given: uint8 [H, W] if grey, else [H, W, 2..4]."""
    planes = [picture.rgb.mean(axis=2, keepdims=True).round().astype(np.uint8)] if picture.grey else [picture.rgb]
    if picture.alpha is not None:
        planes.append(picture.alpha[:, :, None])
    result: Pixels = np.concatenate(planes, axis=2)
    return result[:, :, 0] if result.shape[2] == 1 else result


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


def write_tensor(tensor: Tensor, rgb: Pixels, region: Region, alignment: int) -> None:
    """Writes float32 [1, 3, h, w] around 0..1, rounded and clipped, into the region's part of uint8 [H, W, 3]."""
    target = rgb[region.top * alignment : region.bottom * alignment, region.left * alignment : region.right * alignment]
    h, w = target.shape[:2]
    scaled = tensor[0, :, :h, :w] * np.float32(255) + np.float32(0.5)
    np.clip(scaled, 0, 255, out=scaled)
    target[:] = scaled.astype(np.uint8).transpose(1, 2, 0)


def pack_alpha(alpha: Pixels) -> bytes:
    """Lossless PNG of an alpha plane [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(alpha).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def unpack_alpha(data: bytes | memoryview, height: int, width: int) -> Pixels:
    """Reads what `pack_alpha` wrote; IntegrityError if it is not a plane of this size."""
    _check_chunks(bytes(data))
    try:
        with PngImageFile(io.BytesIO(data)) as image:  # not Image.open, whose limit on pixels is a global of its own
            if (image.width, image.height, image.mode) != (width, height, "L"):
                raise IntegrityError(
                    f"alpha plane is {image.mode} {image.width}x{image.height}, not L {width}x{height}"
                )
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise StreamError(f"alpha plane is not readable ({type(error).__name__})") from error


def _check_chunks(png: bytes) -> None:
    """Refuses chunks that `pack_alpha` does not write: Pillow's readers of some crash or warn on damaged ones."""
    position = 8
    while position + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            raise StreamError(f"alpha plane has a chunk {kind!r}; only image data is allowed")
        position += 12 + length
