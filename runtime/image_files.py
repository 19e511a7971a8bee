"""Image files in and out, through Pillow; every file is written whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from condic.errors import InputError
from condic.files import replace_whole
from condic.runtime.bitstream import Limits

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
"""Image formats that decoded pictures are written in."""


def read_file(source: Path) -> bytes:
    """The bytes of a file; InputError says why not."""
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: {_reason(error)}") from error


def read_image(source: Path, limits: Limits) -> Image.Image:
    """An image file as Pillow reads it, turned as its EXIF says. The size is checked before pixels are read."""
    try:
        Image.MAX_IMAGE_PIXELS = None  # `limits` take its place
        image = Image.open(source)
        limits.check(image.width, image.height, InputError)
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{source}: not an image that Pillow reads") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{source}: {_reason(error)}") from error


def check_target(target: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Raises InputError, before any work is done, if nothing can be written there or the suffix is not allowed."""
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give a file name")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder; make it first")
    if suffixes and target.suffix.lower() not in suffixes:
        raise InputError(f"{target}: no image format has this suffix; use one of {' '.join(suffixes)}")


def write_file(target: Path, data: bytes) -> None:
    """Writes bytes; InputError says why not."""
    try:
        with replace_whole(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"{target}: {_reason(error)}") from error


def write_image(target: Path, pixels: Any) -> None:
    """Writes uint8 [H, W] or [H, W, 2..4] in the format of the suffix; InputError says why not."""
    try:
        with replace_whole(target) as temporary:
            Image.fromarray(pixels).save(temporary)
    except (OSError, ValueError) as error:
        raise InputError(f"{target}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; nothing was written"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
