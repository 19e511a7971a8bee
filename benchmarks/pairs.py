"""Photographs beside what codecs make of them in as many bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from condic.benchmarks.images import read_rgb
from condic.benchmarks.metrics import psnr
from condic.benchmarks.peers import ImageCodec
from condic.errors import InputError
from condic.runtime.arrays import Pixels
from condic.runtime.image_files import FORMATS


@dataclass(frozen=True)
class Picture:
    """An image in a file: which codec, its level (None: the original) and bytes, PSNR in dB, and lossless WebP as
    base64."""

    codec: str
    level: int | None
    bytes: int
    psnr: float | None
    webp: str


_LOWEST = {"jpeg": 1}
"""For Pillow's JPEG a quality of 0 is the usual one."""


@dataclass(frozen=True)
class Pair:
    """One photograph: the original, condic's picture, and those of peers in at most as many bytes."""

    file: str
    width: int
    height: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Pairs:
    """All photographs of a run, and what each codec ran with."""

    settings: Mapping[str, str]
    pairs: tuple[Pair, ...]


def make_pair(
    path: Path, own: ImageCodec, level: int, peers: Sequence[ImageCodec], begin: Callable[[str], None]
) -> Pair:
    """Codes a photograph with `own` at a level, then with each peer at its best level that is no larger.

    A peer whose smallest file is larger is shown with that one. `begin` is called before each codec.
    """
    pixels = read_rgb(path)
    begin(f"{path.name} {own.name}")
    data = own.encode(pixels, level)
    pictures = [
        Picture("original", None, path.stat().st_size, None, _webp(pixels)),
        _picture(own, level, data, pixels),
    ]
    for peer in peers:
        begin(f"{path.name} {peer.name}")
        pictures.append(_picture(peer, *highest_within(peer, pixels, len(data)), pixels))
    height, width = pixels.shape[:2]
    return Pair(path.name, width, height, tuple(pictures))


def check_sides(images: Sequence[Path]) -> None:
    """Raises InputError, before anything takes time, for a photograph too large for the page, whose pictures are WebP,
    or none.
    """
    most = FORMATS[".webp"].side
    for path in images:
        if max(read_rgb(path).shape) > most:
            raise InputError(
                f"{path}: more than {most} pixels a side, and the page has WebP pictures; give a smaller one"
            )


def highest_within(peer: ImageCodec, pixels: Pixels, limit: int) -> tuple[int, bytes]:
    """The highest level up to 99 whose file has at most `limit` bytes, and the file; the lowest level if none has.

    By bisection: files are taken to grow with the level.
    """
    low, high = _LOWEST.get(peer.name, 0), 99  # 100 means another mode of some libraries
    best = peer.encode(pixels, low)
    while low < high:
        middle = (low + high + 1) // 2
        data = peer.encode(pixels, middle)
        if len(data) <= limit:
            low, best = middle, data
        else:
            high = middle - 1
    return low, best


def _picture(codec: ImageCodec, level: int, data: bytes, pixels: Pixels) -> Picture:
    decoded = codec.decode(data)
    return Picture(codec.name, level, len(data), psnr(decoded, pixels), _webp(decoded))


def _webp(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=4)
    return base64.b64encode(buffer.getvalue()).decode()
