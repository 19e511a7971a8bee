"""encode, decode and open_codec: the runtime behind three functions."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from condic.runtime.bitstream import Limits
from condic.runtime.codec import Codec, load_codec
from condic.runtime.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from PIL import Image


def encode(
    image: npt.NDArray[np.uint8] | Image.Image,
    quality: int = 32,
    model: str | Path = DEFAULT_MODEL,
    backend: str = "ort",
) -> bytes:
    """Compresses an image.

    `image`: uint8 array [H, W] (grey), [H, W, 2] (grey, alpha), [H, W, 3] (RGB) or [H, W, 4] (RGBA), or a PIL image;
    at most 2^28 pixels and 65535 a side. `quality`: level 0 (smallest) to 63 (best). `model`: a shipped model's name or
    a bundle's path. `backend`: `ort`, `openvino`, `torch` or `auto`. Raises CondicError.
    """
    return open_codec(model, backend).encode(image, quality)


def decode(
    data: bytes | memoryview, model: str | Path = DEFAULT_MODEL, backend: str = "ort", limits: Limits | None = None
) -> npt.NDArray[np.uint8]:
    """Decompresses a file made by `encode` or condic-run, on any backend, with the same model.

    Returns uint8 [H, W] or [H, W, 2..4], as the image was given. Raises CondicError: StreamError for what is no condic
    file or a damaged one (IntegrityError where a checksum says so), BundleError for another model's file.
    """
    return open_codec(model, backend).decode(data, limits=limits).image


def open_codec(model: str | Path = DEFAULT_MODEL, backend: str = "ort", threads: int = 0) -> Codec:
    """A codec object that keeps its sessions; safe to share between threads. Opened once per set of arguments."""
    return _open(str(model), backend, threads)


@lru_cache(maxsize=4)
def _open(model: str, backend: str, threads: int) -> Codec:
    return load_codec(model, backend, threads)
