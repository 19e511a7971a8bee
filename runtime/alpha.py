"""The alpha plane: a PNG, without loss."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from condic.errors import StreamError
from condic.runtime.arrays import Pixels

_LAST_FILTER = 4
"""Of those that a row's first byte names (PNG, third edition, 9.2)."""


def pack_alpha(alpha: Pixels) -> bytes:
    """Lossless PNG of an alpha plane [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(alpha).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def unpack_alpha(data: bytes | memoryview, height: int, width: int) -> Pixels:
    """Reads what `pack_alpha` wrote.

    Raises StreamError if it is no such PNG, of this size.

    All of it is looked at before Pillow sees it, whose readers of some chunks crash or warn on damaged ones, and which
    takes rows that are missing for zeros, or, where a program allows truncated images, any that it cannot read.
    """
    _check(bytes(data), height, width)
    try:
        with PngImageFile(io.BytesIO(data)) as image:  # not Image.open, whose limit on pixels is a global of its own
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise StreamError(f"alpha plane is not readable ({type(error).__name__})") from error


def _check(png: bytes, height: int, width: int) -> None:
    """Refuses all but a header for 8-bit grey of this size, the data of all rows, and an end."""
    chunks = list(_chunks(png))
    kinds = [kind for kind, _ in chunks]
    if kinds[:1] != [b"IHDR"] or kinds[-1] != b"IEND" or set(kinds[1:-1]) != {b"IDAT"}:
        raise StreamError("alpha plane is no PNG of a header, image data and an end alone")
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    if chunks[0][1] != header or chunks[-1][1]:
        raise StreamError(f"alpha plane is not one of 8-bit grey, {width}x{height}, not interlaced")
    size, inflater = height * (width + 1), zlib.decompressobj()
    try:
        rows = inflater.decompress(b"".join(data for _, data in chunks[1:-1]), size + 1)
    except zlib.error as error:
        raise StreamError("alpha plane has damaged image data") from error
    if len(rows) != size or not inflater.eof or inflater.unused_data:
        raise StreamError(f"alpha plane does not have the data of {height} rows of {width} pixels")
    if max(rows[:: width + 1]) > _LAST_FILTER:
        raise StreamError("alpha plane has a row with a filter that PNG does not have")


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise StreamError("alpha plane is no PNG")
    position = 8
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        kind, data, checksum = png[position + 4 : position + 8], png[position + 8 : end - 4], png[end - 4 : end]
        if end > len(png) or zlib.crc32(kind + data) != int.from_bytes(checksum, "big"):
            raise StreamError("alpha plane has a damaged chunk")
        yield kind, data
        position = end
