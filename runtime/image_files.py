"""Image files in and out, through Pillow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from condic.errors import CondicError, CondicWarning, InputError, within_memory
from condic.files import Source, name_of, opened, reason, writing
from condic.runtime.arrays import Pixels
from condic.runtime.bitstream import Limits
from condic.runtime.conversion import drop_tiff_tags
from condic.runtime.metadata import Metadata
from condic.runtime.pictures import Picture, as_picture


@dataclass(frozen=True)
class Format:
    """An image format: Pillow's name, whether it holds alpha and metadata, and the most pixels a side."""

    name: str
    alpha: bool = True
    metadata: bool = True
    side: int = 2**31 - 1


_PNG, _TIFF = Format("PNG"), Format("TIFF")
_JPEG, _WEBP = Format("JPEG", alpha=False, side=65500), Format("WEBP", side=16383)
_BMP, _PPM = (Format(name, alpha=False, metadata=False) for name in ("BMP", "PPM"))
FORMATS = {
    ".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _WEBP, ".tif": _TIFF, ".tiff": _TIFF, ".bmp": _BMP,
    ".ppm": _PPM,
}  # fmt: skip
"""The formats that decoded pictures are written in, by suffix."""
SUFFIXES = tuple(FORMATS)

_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}
_LONGEST_MARKER = 65533
"""Bytes of a JPEG file's marker segment."""
_MARKED = {"exif": 6, "xmp": 29}
"""Bytes before EXIF and XMP in such a segment."""
_MOST_PROFILE = 2**20
"""Bytes of an ICC profile in a PNG file that Pillow reads again, as long as nobody raises its limit."""
_XMP_TAG = 700
_XML_STARTS = {
    b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"
}  # fmt: skip


def read_picture(source: Source, limits: Limits | None = None) -> Picture:
    """An image file that Pillow reads, given by path, as bytes or as an open file, or for `-` on standard input.

    It is turned as its EXIF says. The size is checked before pixels are read. Raises InputError and OutOfMemoryError,
    which name the file; warns (CondicWarning) about what is lost.
    """
    try:
        with within_memory(), opened(source) as file, _opened_image(file) as image:
            image.filename = str(source) if isinstance(source, Path | str) else ""
            return as_picture(image, limits)
    except CondicError as error:
        raise type(error)(f"{name_of(source)}: {error}") from error
    except (OSError, ValueError) as error:  # no file, or a closed one
        raise InputError(f"{name_of(source)}: {reason(error)}") from error


def _opened_image(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        file.seek(0)
        raise InputError("not an image that Pillow reads" if file.read(1) else "the file is empty") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{error}; raise PIL.Image.MAX_IMAGE_PIXELS to accept it") from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # Pillow's readers of broken files raise nearly anything
        raise InputError(f"Pillow cannot read it ({reason(error)})") from error


def check_format(target: Path, suffix: str, width: int, height: int, *, alpha: bool) -> Format:
    """That of the target's suffix, or of `suffix` where that is none. InputError if it cannot hold the picture."""
    kind = FORMATS.get(target.suffix.lower()) or FORMATS[suffix.lower()]
    if alpha and not kind.alpha:
        raise InputError(f"{target}: {kind.name} cannot hold alpha; use .png, .webp or .tiff")
    if max(width, height) > kind.side:
        raise InputError(f"{target}: {kind.name} cannot hold {width}x{height}, more than {kind.side} a side; use .png")
    return kind


def write_image(
    target: Path, pixels: Pixels, metadata: Metadata | None = None, suffix: str = ".png", *, replace: bool = True
) -> None:
    """Writes uint8 [H, W] or [H, W, 2..4] in the format of the target's suffix, or of `suffix` where it has none.

    JPEG has quality 95 without subsampling, WebP is lossless. Alpha that is opaque everywhere is left out where the
    format has none. Raises InputError; warns (CondicWarning) about metadata that the format does not hold.
    """
    image = Image.fromarray(pixels)
    transparent = "A" in image.getbands() and bool(np.asarray(image.getchannel("A")).min(initial=255) < 255)
    kind = check_format(target, suffix, image.width, image.height, alpha=transparent)
    if not kind.alpha:
        image = image.convert(image.mode.removesuffix("A"))
    held = _held(metadata or Metadata(), kind, target)
    try:
        with writing(target, replace=replace) as file:
            image.save(file, kind.name, **_OPTIONS.get(kind.name, {}), **_arguments(held, kind))
    except ValueError as error:
        raise InputError(f"{target}: {reason(error)}") from error


def _held(metadata: Metadata, kind: Format, target: Path) -> Metadata:
    """What a format holds of the metadata."""
    left_out = {
        name
        for name, size in metadata.sizes().items()
        if not kind.metadata or (kind is _JPEG and size > _LONGEST_MARKER - _MARKED.get(name, -(2**24)))
    }
    if kind is _PNG and len(metadata.icc_profile) > _MOST_PROFILE:
        text = "Pillow does not read a PNG file with an ICC profile of over 1 MiB; use .tiff or .webp"
        warnings.warn(CondicWarning(f"{target}: {text}"), stacklevel=3)
    if not left_out:
        return metadata
    warnings.warn(CondicWarning(f"{target}: {kind.name} cannot hold {', '.join(sorted(left_out))}"), stacklevel=3)
    return Metadata(**{name: getattr(metadata, name) for name in metadata.sizes() if name not in left_out})


def _own_tags(exif: bytes) -> Image.Exif:
    """EXIF for a TIFF file, whose own tags say how its pixels lie; none with a warning where it cannot be read."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        drop_tiff_tags(tags)
        tags.tobytes()
    except Exception:  # Pillow's reader of broken EXIF raises nearly anything
        warnings.warn(CondicWarning("the EXIF data is unreadable and left out"), stacklevel=4)
        return Image.Exif()
    return tags


def _text_of(xmp: bytes) -> str:
    """An XMP packet, in UTF-8 or one of the others that XML begins to tell by itself (XML 1.0, appendix F)."""
    encoding = next((name for start, name in _XML_STARTS.items() if xmp.startswith(start)), "utf-8")
    try:
        return xmp.decode(encoding)
    except UnicodeDecodeError:
        warnings.warn(CondicWarning(f"XMP is no {encoding.upper()}; what is none is replaced"), stacklevel=5)
        return xmp.decode(encoding, "replace")


def _arguments(metadata: Metadata, kind: Format) -> dict[str, Any]:
    """The metadata as the arguments that Pillow's writer of a format takes."""
    arguments: dict[str, Any] = {"icc_profile": metadata.icc_profile} if metadata.icc_profile else {}
    exif = b"Exif\0\0" + metadata.exif if metadata.exif else b""
    if kind is _TIFF:
        tags = _own_tags(exif)
        if metadata.xmp:
            tags[_XMP_TAG] = metadata.xmp
        return arguments | ({"exif": tags} if len(tags) else {})
    if exif:
        arguments["exif"] = exif
    if metadata.xmp and kind is _PNG:
        arguments["pnginfo"] = text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", _text_of(metadata.xmp))
    elif metadata.xmp:
        arguments["xmp"] = metadata.xmp
    return arguments
