"""From whatever Pillow reads to 8-bit grey or RGB with its metadata, and a warning where something is lost."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from condic.errors import CondicWarning, InputError
from condic.files import reason
from condic.runtime.metadata import Metadata, bare_exif

_GREY = ("1", "L", "LA", "La", "I", "F")
_ORIENTATION = 0x0112
_OF_TIFF = {
    254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 290, 291, 292, 293, 297, 301, 317, 318, 319,
    320, 322, 323, 324, 325, 330, 332, 333, 336, 337, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517, 518, 519,
    520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675,
}  # fmt: skip
"""Tags of a TIFF file's directory that describe how its pixels lie there, or hold what is carried apart."""


_HEAD = 4096
"""Bytes in which a file says what it holds."""


def eight_bits(image: Image.Image) -> tuple[Image.Image, Metadata]:
    """An image of mode L, LA, RGB or RGBA, upright, and its metadata.

    CMYK and Lab become sRGB, through the profile if there is one. All other colours keep their values, and their
    profile is carried along. Warns (CondicWarning) about frames and bits that are lost. Raises InputError where Pillow
    cannot decode the image.
    """
    try:
        _refuse_what_is_misread(image)
        bits = _stored_bits(image)  # Pillow forgets it when it decodes
        grey = "LA;16B" in _raw_modes(image)  # which becomes RGBA
        _warn_of_losses(image, deep=max(bits, _bits_of_box(image)) > 8)
        image.load()
    except (CondicWarning, InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders of broken files raise nearly anything
        raise InputError(f"Pillow cannot decode it ({reason(error)})") from error
    try:
        metadata = _metadata(image)
        if _orientation(image) != 1:
            image, metadata = ImageOps.exif_transpose(image), metadata.upright()
        if image.mode in ("CMYK", "LAB"):
            image, metadata = _to_srgb(image, metadata.icc_profile), Metadata(b"", metadata.exif, metadata.xmp)
        return _reduced(image, bits, grey_in_colour=grey), metadata
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"Pillow cannot convert it ({reason(error)})") from error


def _refuse_what_is_misread(image: Image.Image) -> None:
    """Raises InputError for kinds of TIFF files that Pillow decodes to other colours without a word."""
    tags = getattr(image, "tag_v2", {})
    bits, samples, formats = (np.ravel(tags.get(tag, default)) for tag, default in ((258, 1), (277, 1), (339, 1)))
    depth, planes = bits.max(initial=1), tags.get(284) == 2
    for misread, kind in (
        (depth > 8 and tags.get(262) == 0, "TIFF files of more than 8 bits whose 0 is white"),
        (planes and tags.get(262) == 0, "TIFF files in planes whose 0 is white"),
        (depth > 8 and planes and samples.max(initial=1) > 1, "16-bit TIFF files with a plane for each colour"),
        (depth <= 8 and (formats == 2).any(), "TIFF files of 8-bit numbers with a sign"),
        (
            depth > 16 and (formats == 1).any() and np.asarray(image).min(initial=0) < 0,
            "TIFF files of 32-bit numbers of which some are beyond 2^31",
        ),
    ):
        if misread:
            raise InputError(f"Pillow misreads {kind}; convert it with another program first")


def _warn_of_losses(image: Image.Image, *, deep: bool) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        _warn(image, f"{frames} frames; only one, the {'first' if not image.tell() else 'current'}, is encoded")
    if image.mode == "F":
        _warn(image, "32-bit floating-point values are clipped to 0..255")
    elif image.mode == "I":
        _warn(image, "more than 8 bits a sample are reduced to 8, values beyond 65535 clipped")
    elif image.mode.startswith("I") or deep:
        _warn(image, "more than 8 bits a sample are reduced to 8")


def _stored_bits(image: Image.Image) -> int:
    """Bits a sample in the file, as far as Pillow tells before it decodes: colours then have 8 in all its modes."""
    bits = getattr(image, "tag_v2", {}).get(258, (8,))
    if isinstance(bits, tuple) and max(bits) > 8:
        return int(max(bits))
    modes = _raw_modes(image)
    if any(";16" in x for x in modes):
        return 16
    if image.format == "PNG" and modes in (["L;2"], ["L;4"]):
        return int(modes[0][-1])
    for tile in getattr(image, "tile", ()):
        last = tile[3][-1] if isinstance(tile[3], tuple) and tile[3] else None
        if tile[0] == "SGI16" or (tile[0] in ("ppm", "ppm_plain") and isinstance(last, int) and last > 255):
            return 16
    return 8


def _raw_modes(image: Image.Image) -> list[str]:
    """What Pillow calls the pixels of the file, before it decodes them."""
    given = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())]
    return [x for arguments in given for x in arguments if isinstance(x, str)]


def _bits_of_box(image: Image.Image) -> int:
    """Bits a sample that an AVIF (ISO/IEC 23008-12, `pixi`) or JPEG 2000 file (ISO/IEC 15444-1, `SIZ`) says it has.

    0 where it is neither, or closed by now.
    """
    file, places = getattr(image, "fp", None), {"AVIF": (b"pixi", 9, 0), "JPEG2000": (b"\xff\x51", 40, 1)}
    if file is None or getattr(file, "closed", False) or image.format not in places:
        return 0
    marker, offset, less = places[image.format]
    at = file.tell()
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(at)
    found = head.find(marker)
    return (head[found + offset] & 127) + less if 0 <= found < len(head) - offset else 0


def _metadata(image: Image.Image) -> Metadata:
    xmp = image.info.get("xmp") or b""
    return Metadata(
        image.info.get("icc_profile") or b"", _exif(image), xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    )


def _exif(image: Image.Image) -> bytes:
    stored = image.info.get("exif")
    if isinstance(stored, bytes):
        return bare_exif(stored)
    try:
        exif = image.getexif()
        if image.format == "TIFF":
            drop_tiff_tags(exif)
        return bare_exif(exif.tobytes()) if len(exif) else b""
    except Exception:  # Pillow's reader of broken EXIF raises nearly anything
        _warn(image, "the EXIF data is unreadable and left out")
        return b""


def drop_tiff_tags(exif: Image.Exif) -> None:
    """Takes out what a TIFF file's directory says of that file alone."""
    for tag in _OF_TIFF & exif.keys():
        del exif[tag]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as above; such an image stays as it is
        return 1


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB")
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        converted = ImageCms.profileToProfile(image, source, srgb, intent, "RGB")
        assert converted is not None
        return converted
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        if image.mode == "LAB":
            raise InputError(f"Lab colours cannot be converted ({error})") from error
        _warn(image, f"the {image.mode} profile is unusable; colours are converted without it")
        return image.convert("RGB")


def _reduced(image: Image.Image, bits: int, *, grey_in_colour: bool) -> Image.Image:
    key = image.info.get("transparency")  # the value, or colour, that is transparent, with as many bits as stored
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode != "I" or values.max(initial=0) > 255:  # Pillow's own conversion clips instead of scaling
            image = Image.fromarray(_from_bits(values, bits if 8 < bits < 16 else 16))
            if isinstance(key, int):
                image.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    elif bits > 8 and isinstance(key, tuple):
        _warn(image, "colours with the upper 8 bits of the transparent one become transparent too")
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif bits < 8 and isinstance(key, int):
        image = image.copy()
        image.info["transparency"] = key * 255 // (2**bits - 1)
    if image.mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    transparent = image.has_transparency_data  # a palette may have alpha too
    grey = image.mode in _GREY or grey_in_colour
    target = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    return image if image.mode == target else image.convert(target)


def _from_bits(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Rounds v * 255 / (2**bits - 1)."""
    most = 2**bits - 1
    wide = np.clip(values, 0, most).astype(np.uint32)
    narrow: npt.NDArray[np.uint8] = ((wide * 255 + most // 2) // most).astype(np.uint8)
    return narrow


def _warn(image: Image.Image, message: str) -> None:
    name = getattr(image, "filename", "") or "image"
    warnings.warn(CondicWarning(f"{name}: {message}"), stacklevel=2)
