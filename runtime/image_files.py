"""Image files in and out, through Pillow."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from condic.errors import InputError
from condic.files import reason, writing
from condic.runtime.bitstream import Limits

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
    ".ppm": "PPM",
}  # fmt: skip
"""Pillow's names of the formats that decoded pictures are written in, by suffix."""
SUFFIXES = tuple(FORMATS)


def read_image(source: Path, limits: Limits) -> Image.Image:
    """An image file as Pillow reads it, turned as its EXIF says. The size is checked before pixels are read."""
    try:
        Image.MAX_IMAGE_PIXELS = None  # `limits` take its place
        image = Image.open(io.BytesIO(sys.stdin.buffer.read()) if str(source) == "-" else source)
        limits.check(image.width, image.height, InputError)
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{source}: not an image that Pillow reads") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{source}: {reason(error)}") from error


def write_image(target: Path, pixels: Any, suffix: str | None = None, *, replace: bool = True) -> None:
    """Writes uint8 [H, W] or [H, W, 2..4] in the format of the target's suffix, or of `suffix` where it has none.

    Raises InputError.
    """
    kind = FORMATS[(target.suffix or suffix or ".png").lower()]
    try:
        with writing(target, replace=replace) as file:
            Image.fromarray(pixels).save(file, kind)
    except ValueError as error:
        raise InputError(f"{target}: {reason(error)}") from error
