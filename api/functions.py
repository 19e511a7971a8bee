"""encode, decode, encode_many, decode_many and open_codec: the runtime behind a few functions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from condic.coded_image import CodedImage
from condic.errors import InputError
from condic.files import Source, named, read_source
from condic.runtime.backends import BackendOptions
from condic.runtime.bitstream import MAGIC, Limits, read_header
from condic.runtime.bundle import version_of
from condic.runtime.codec import Codec, load_codec
from condic.runtime.forks import loading
from condic.runtime.pictures import as_picture
from condic.runtime.rate_control import DEFAULT_QUALITY, encode_for
from condic.runtime.shipped import DEFAULT_MODEL, find_bundle, model_of

if TYPE_CHECKING:
    from PIL import Image


def encode(
    image: npt.NDArray[np.uint8] | Image.Image | Source,
    quality: int | None = None,
    model: str | Path = DEFAULT_MODEL,
    backend: str = "auto",
    *,
    max_bytes: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    strip: bool = False,
    limits: Limits | None = None,
) -> bytes:
    """Compresses an image.

    `image`: uint8 array [H, W] (grey), [H, W, 2] (grey, alpha), [H, W, 3] (RGB) or [H, W, 4] (RGBA); a PIL image; or an
    image file by path, as bytes, or open for reading. ICC profile, EXIF and XMP of the latter two are kept, unless
    `strip`. `quality`: level 0 (smallest) to 63 (best), default 32. Instead of it one limit: `max_bytes` or `bpp`, bits
    per pixel, gives the best level whose file is no larger, `psnr` the smallest level whose picture has so many dB over
    RGB. `model`: a shipped model's name or a bundle's path. `backend`: `ort`, `openvino`, `torch`, or `auto` for the
    first of them that works; on a GPU `tensorrt` or `ort-cuda`. `limits`: by default at most 2^28 pixels and 65535 a
    side.

    Raises CondicError: InputError for what cannot be encoded as asked. Warns (CondicWarning) about what is lost.
    """
    picture = as_picture(image, limits)
    picture = picture.without_metadata() if strip else picture
    codec = open_codec(model, backend)
    chosen = encode_for(codec, picture, quality=quality, max_bytes=max_bytes, bpp=bpp, psnr=psnr, limits=limits)
    return chosen.data


def decode(
    source: Source,
    model: str | Path | None = None,
    backend: str = "auto",
    limits: Limits | None = None,
    region: Sequence[int] | None = None,
) -> npt.NDArray[np.uint8]:
    """Decompresses a file made by `encode` or condic-run, on any backend.

    `source`: the file as bytes, by path, or open for reading. `model`: by default the shipped one that the file names.
    `region`: left, top, width and height in pixels of the only part that is wanted.

    Returns uint8 [H, W] or [H, W, 2..4], as the image was given. Raises CondicError: StreamError for what is no condic
    file or a damaged one (IntegrityError where a checksum says so), BundleError for another model's file.
    """
    return CodedImage(source, model, backend, limits).decode(region).image


def encode_many(
    images: Iterable[npt.NDArray[np.uint8] | Image.Image | Source],
    quality: int = DEFAULT_QUALITY,
    model: str | Path = DEFAULT_MODEL,
    backend: str = "auto",
    *,
    strip: bool = False,
    limits: Limits | None = None,
) -> Iterator[bytes]:
    """Compresses images, each as `encode` does: one is entropy coded while the next is analysed.

    Gives files in the order of the images, which are taken as they are needed: a few are in memory, however many there
    are. An error comes in its image's place and is the end.
    """
    pictures = (as_picture(image, limits) for image in images)
    if strip:
        pictures = (picture.without_metadata() for picture in pictures)
    return open_codec(model, backend).encode_many(pictures, quality, limits)


def decode_many(
    sources: Iterable[Source],
    model: str | Path | None = None,
    backend: str = "auto",
    limits: Limits | None = None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decompresses files, each as `decode` does: one is drawn while the latents of the next are decoded.

    Gives images in the order of the files, which are taken as they are needed: none before the first image is asked
    for. `model`: by default the shipped one that the first file names; all must be of one model. An error comes in its
    file's place and is the end.
    """
    files = iter(sources)
    first = next(files, None)
    if first is None:
        return
    data = bytes(read_source(first, MAGIC))  # a copy of what can change, as of those that follow
    with named(first):
        codec = open_codec(model or model_of(read_header(data, limits).bundle_id), backend)
        results = codec.decode_many(chain([data], files), limits)
        image = next(results).image
    yield image
    for decoded in results:
        yield decoded.image


_MOST_CODECS = 4
_codecs: OrderedDict[tuple[object, ...], Codec] = OrderedDict()
"""Those that were used last, by bundle, backend and threads."""


def open_codec(model: str | Path = DEFAULT_MODEL, backend: str = "auto", threads: int = 0) -> Codec:
    """A codec that keeps its sessions; safe to share between threads. The four that were used last are kept.

    A bundle that has changed since, or another one of the same name in another folder, is another codec; its file has
    to stay.

    `threads`: of the backend, at most 256; 0 lets it choose. `codec.backend_name` says which `auto` has found.
    Raises BundleError, BackendError, and InputError for other arguments than these.
    """
    if not isinstance(backend, str):
        raise InputError(f"backend is a {type(backend).__name__}; give its name")
    BackendOptions(threads=threads)  # which says what is wrong with them
    key = (version_of(find_bundle(str(model))), backend, threads)
    codec = _codecs.get(key)  # without the lock, which others may hold for seconds
    if codec is None:
        with loading():  # or threads that come at once would each open one
            codec = _codecs.get(key) or load_codec(str(model), backend, threads)
            _codecs[key] = codec
            while len(_codecs) > _MOST_CODECS:
                _codecs.popitem(last=False)
    with suppress(KeyError):  # another thread has just let go of it
        _codecs.move_to_end(key)
    return codec
