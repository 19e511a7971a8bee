"""Files of one backend decoded by another: the integers that come out, and the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from condic.benchmarks.images import read_rgb
from condic.errors import CondicError
from condic.runtime.arrays import Pixels
from condic.runtime.codec import Codec


@dataclass(frozen=True)
class Cell:
    """All images encoded by one backend and decoded by another.

    `latents` is the SHA-256 of the first image's decoded integer latents, `equal` counts the images whose latents have
    the hash that the encoding backend itself decodes; `difference` is the largest one in grey levels between a picture
    and the encoding backend's own. `error` says what went wrong instead.
    """

    encoder: str
    decoder: str
    latents: str
    equal: int
    difference: int
    error: str | None


@dataclass(frozen=True)
class Matrix:
    """Every pair of `backends` (name to library and version) on `images`, at one level."""

    model: str
    level: int
    images: tuple[str, ...]
    backends: Mapping[str, str]
    cells: tuple[Cell, ...]


def measure_matrix(
    codecs: dict[str, Codec], images: Sequence[Path], level: int, begin: Callable[[str], None]
) -> Matrix:
    """Encodes with each codec and decodes with every one; `begin` is called before each pair."""
    pixels = [read_rgb(path) for path in images]
    cells = []
    for encoder, codec in codecs.items():
        try:
            files = [codec.encode(image, level) for image in pixels]
            own = [codec.decode(data, latents=True) for data in files]
        except CondicError as error:  # what this is here to show
            cells += [Cell(encoder, decoder, "", 0, 0, str(error)) for decoder in codecs]
            continue
        hashes = [decoded.latents_sha256() for decoded in own]
        pictures = [decoded.image for decoded in own]
        for decoder, other in codecs.items():
            begin(f"{encoder} to {decoder}")
            cells.append(_cell(encoder, decoder, other, files, hashes, pictures))
    first = next(iter(codecs.values()))
    model = f"{first.bundle.manifest.name} ({first.bundle.id.hex()})"
    backends = {name: codec.backend for name, codec in codecs.items()}
    return Matrix(model, level, tuple(path.name for path in images), backends, tuple(cells))


def _cell(
    encoder: str, decoder: str, codec: Codec, files: Sequence[bytes], hashes: Sequence[str], pictures: Sequence[Pixels]
) -> Cell:
    found: list[str] = []
    difference = 0
    try:
        for data, picture in zip(files, pictures, strict=True):
            decoded = codec.decode(data, latents=True)
            found.append(decoded.latents_sha256())
            difference = max(difference, int(np.abs(decoded.image.astype(np.int16) - picture).max()))
    except CondicError as error:
        return Cell(encoder, decoder, "", 0, 0, str(error))
    equal = sum(a == b for a, b in zip(found, hashes, strict=True))
    return Cell(encoder, decoder, found[0], equal, difference, None)
