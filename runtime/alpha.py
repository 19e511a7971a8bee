"""The alpha plane: a PNG, without loss."""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from condic.errors import IntegrityError, StreamError

Pixels = npt.NDArray[np.uint8]


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
