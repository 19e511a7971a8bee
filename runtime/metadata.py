"""What a file carries besides pixels: ICC profile, EXIF and XMP, under zlib (docs/bitstream.md gives the bytes).

Imports neither numpy nor Pillow: looking at a file takes milliseconds.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, fields

from condic.errors import LimitError, StreamError
from condic.runtime.bitstream import Limits

_LENGTH = struct.Struct("<I")
_ITEM = struct.Struct("<BI")
_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""Types of EXIF values that hold whole numbers, as struct writes them."""


@dataclass(frozen=True)
class Metadata:
    """Byte for byte as the image had them, and empty where it had none.

    `icc_profile`: as in ICC.1; `exif`: from the TIFF header on; `xmp`: a packet of XML.
    """

    icc_profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.icc_profile or self.exif or self.xmp)

    def sizes(self) -> dict[str, int]:
        """Bytes of what there is."""
        return {field.name: len(value) for field in fields(self) if (value := getattr(self, field.name))}

    def upright(self) -> Metadata:
        """The same for an image that has been turned as it asks: the orientations in EXIF and XMP say 1, upright."""
        return Metadata(self.icc_profile, _upright_exif(self.exif), _upright_xmp(self.xmp))


def bare_exif(exif: bytes) -> bytes:
    """EXIF from its TIFF header on; JPEG files, and Pillow, put six bytes before it."""
    return exif.removeprefix(_EXIF_PREFIX)


def pack_metadata(metadata: Metadata) -> bytes:
    """The payload of a metadata section."""
    items = [(kind, getattr(metadata, field.name)) for kind, field in enumerate(fields(metadata))]
    plain = b"".join(_ITEM.pack(kind, len(value)) + value for kind, value in items if value)
    return _LENGTH.pack(len(plain)) + zlib.compress(plain, 9)


def unpack_metadata(payload: bytes | memoryview, limits: Limits | None = None) -> Metadata:
    """Reads what `pack_metadata` wrote. Raises StreamError for anything else, before it takes more memory than stated.

    The length that the payload states must be within `limits.metadata`, and decompression stops one byte beyond it.
    """
    if len(payload) < _LENGTH.size:
        raise StreamError("metadata: too short")
    (length,) = _LENGTH.unpack_from(payload)
    most = (limits or Limits()).metadata
    if length > most:
        raise LimitError(f"metadata: {length} bytes are over the limit of {most}; in Python, Limits can raise it")
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(payload[_LENGTH.size :], length + 1)
    except zlib.error as error:
        raise StreamError(f"metadata: not decompressible ({error})") from error
    if len(plain) != length or not decompressor.eof or decompressor.unused_data:
        raise StreamError(f"metadata: not the {length} bytes that it states")
    return _parse(plain)


def _parse(plain: bytes) -> Metadata:
    names = [field.name for field in fields(Metadata)]
    found: dict[str, bytes] = {}
    position, least = 0, 0
    while position < len(plain):
        if len(plain) - position < _ITEM.size:
            raise StreamError("metadata: an item is cut off")
        kind, length = _ITEM.unpack_from(plain, position)
        position += _ITEM.size
        if not least <= kind < len(names) or not 0 < length <= len(plain) - position:
            raise StreamError(f"metadata: an item of kind {kind} with {length} bytes is not allowed here")
        found[names[kind]] = plain[position : position + length]
        position, least = position + length, kind + 1
    if not found:
        raise StreamError("metadata: empty")
    return Metadata(**found)


def _upright_exif(exif: bytes) -> bytes:
    """EXIF whose orientation is 1, with nothing else changed; as it is where there is no orientation to be found."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return exif
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    if directory + 2 > len(exif):
        return exif
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if entry + 12 > len(exif):
            break
        tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
        if tag == _ORIENTATION and kind in _INTEGERS:
            one = struct.pack(order + _INTEGERS[kind], 1)
            return exif[: entry + 8] + one + exif[entry + 8 + len(one) :]
    return exif


def _upright_xmp(xmp: bytes) -> bytes:
    """The packet with tiff:Orientation, as attribute or element, set to 1; it keeps its length."""
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[1-8]", rb"\g<1>1", xmp)
