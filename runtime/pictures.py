"""An image taken apart into what is coded how: colour by the networks, alpha and metadata without loss."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.errors import CondicWarning, InputError, within_memory
from condic.files import reason
from condic.runtime.alpha import pack_alpha, unpack_alpha
from condic.runtime.arrays import Pixels
from condic.runtime.bitstream import ALPHA, METADATA, Flags, Limits, Section, Stream
from condic.runtime.metadata import Metadata, pack_metadata, unpack_metadata

_NONE = Metadata()


@dataclass(frozen=True)
class Picture:
    """`rgb` uint8 [H, W, 3], `alpha` uint8 [H, W] or None, whether the image was grey, and its metadata."""

    rgb: Pixels
    alpha: Pixels | None
    grey: bool
    metadata: Metadata = _NONE

    @property
    def flags(self) -> Flags:
        """The header's flags."""
        return (
            (Flags.GREY if self.grey else Flags.NONE)
            | (Flags.NONE if self.alpha is None else Flags.ALPHA)
            | (Flags.METADATA if self.metadata else Flags.NONE)
        )

    @cached_property
    def sections(self) -> list[Section]:
        """What is coded without loss."""
        sections = [] if self.alpha is None else [Section(ALPHA, pack_alpha(self.alpha))]
        return sections + ([Section(METADATA, pack_metadata(self.metadata))] if self.metadata else [])

    def colours(self) -> Pixels:
        """uint8 [H, W, 3], or [H, W, 1] if the image was grey."""
        return grey_of(self.rgb) if self.grey else self.rgb

    def array(self) -> Pixels:
        """The image as it was given: uint8 [H, W] if grey, else [H, W, 2..4]."""
        planes = [self.colours()] + ([] if self.alpha is None else [self.alpha[:, :, None]])
        result: Pixels = np.concatenate(planes, axis=2)
        return result[:, :, 0] if result.shape[2] == 1 else result

    def without_metadata(self) -> Picture:
        """The same with no metadata."""
        return replace(self, metadata=_NONE)


@within_memory()
def as_picture(image: Any, limits: Limits | None = None) -> Picture:
    """Takes a uint8 array [H, W] or [H, W, 1..4] (grey, grey+alpha, RGB, RGBA), a PIL image, or an image file.

    A file is given by path, as bytes, or open for reading; it and a PIL image come with their metadata.
    The size is checked before pixels are touched. Raises InputError, OutOfMemoryError.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(image, "read"):
        from condic.runtime.image_files import read_picture

        return read_picture(image, limits)
    limits, metadata, name = limits or Limits(), _NONE, getattr(image, "filename", "") or "image"
    if not isinstance(image, np.ndarray):
        from PIL import Image

        from condic.runtime.conversion import eight_bits

        if isinstance(image, Image.Image):
            limits.check(image.width, image.height)
            image, metadata = eight_bits(image)
    if metadata and sum(metadata.sizes().values()) > limits.metadata - 64:
        warnings.warn(CondicWarning(f"{name}: metadata of over {limits.metadata} bytes is left out"), stacklevel=2)
        metadata = _NONE
    try:
        array = np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # an object's own __array__ may fail in any way
        raise InputError(f"image is a {type(image).__name__}, not an array: {reason(error)}") from error
    if array.dtype != np.uint8:
        raise InputError(f"image has dtype {array.dtype}; give uint8 values 0..255")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or not array.size:
        raise InputError(f"image has shape {np.shape(image)}; give [H, W] or [H, W, 1..4] with at least one pixel")
    limits.check(array.shape[1], array.shape[0])
    channels = array.shape[2]
    alpha = array[:, :, -1] if channels in (2, 4) else None
    rgb = np.broadcast_to(array[:, :, :1], (*array.shape[:2], 3)) if channels < 3 else array[:, :, :3]
    return Picture(rgb, alpha, channels < 3, metadata)


def grey_of(rgb: Pixels) -> Pixels:
    """The mean of the three channels, rounded: uint8 [H, W, 3] to [H, W, 1]."""
    sums: npt.NDArray[np.uint16] = rgb.sum(axis=2, dtype=np.uint16, keepdims=True)
    return ((sums + 1) // 3).astype(np.uint8)


def stored_without_loss(stream: Stream, limits: Limits | None = None) -> tuple[Pixels | None, Metadata]:
    """A file's alpha plane, uint8 [H, W] or None, and its metadata. Raises StreamError."""
    header, alpha, metadata = stream.header, None, _NONE
    if header.flags & Flags.ALPHA:
        alpha = unpack_alpha(stream.section(ALPHA).payload, header.height, header.width)
    if header.flags & Flags.METADATA:
        metadata = unpack_metadata(stream.section(METADATA).payload, limits)
    return alpha, metadata
