"""Real files and the images decoded from them: rate, PSNR and MS-SSIM, and the rate against other codecs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Protocol

import numpy as np
import numpy.typing as npt

from condic.benchmarks.anchors import Anchor
from condic.benchmarks.bd_rate import BdRate, Curve, bd_rate
from condic.benchmarks.images import read_rgb
from condic.benchmarks.metrics import decibels, ms_ssim, psnr
from condic.errors import CondicError
from condic.runtime.codec import Codec

Pixels = npt.NDArray[np.uint8]

RUN_HERE = "run here"
"""The source of a curve that is measured, not published."""


class ImageCodec(Protocol):
    """A codec under test."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def levels(self) -> Sequence[int]:
        """Its settings, from small files to large ones."""
        ...

    @property
    def settings(self) -> str:
        """What else it runs with."""
        ...

    def encode(self, image: Pixels, level: int) -> bytes:
        """uint8 [H, W, 3] to a whole file."""
        ...

    def decode(self, data: bytes) -> Pixels:
        """A file to uint8 [H, W, 3]."""
        ...


@dataclass(frozen=True)
class Condic:
    """A condic codec under test."""

    codec: Codec
    levels: Sequence[int]

    @property
    def name(self) -> str:
        """Codec and preset."""
        manifest = self.codec.bundle.manifest
        return f"condic {manifest.codec}-{manifest.preset}"

    @property
    def settings(self) -> str:
        """Model and backend."""
        return f"model {self.codec.bundle.id.hex()}, {self.codec.backend}"

    def encode(self, image: Pixels, level: int) -> bytes:
        """A condic file."""
        return self.codec.encode(image, level)

    def decode(self, data: bytes) -> Pixels:
        """The decoded image."""
        return self.codec.decode(data).image


@dataclass(frozen=True)
class Result:
    """One image through one codec at one level; `ms_ssim` as it is, not in dB."""

    codec: str
    file: str
    level: int
    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float


@dataclass(frozen=True)
class Mean:
    """A codec at one level: means over all images of bits per pixel, PSNR and MS-SSIM."""

    level: int
    bpp: float
    psnr: float
    ms_ssim: float


@dataclass(frozen=True)
class Comparison:
    """Rate of `codec` against `reference`, by PSNR and by MS-SSIM in dB; None where nothing can be compared."""

    codec: str
    reference: str
    source: str
    psnr: BdRate | None
    ms_ssim: BdRate | None


def measure(codec: ImageCodec, images: Sequence[Path], done: Callable[[], None]) -> list[Result]:
    """Codes every image at every level; `done` is called after each of them. Errors name the image."""
    results = []
    for path in images:
        pixels = read_rgb(path)
        try:
            for level in codec.levels:
                data = codec.encode(pixels, level)
                decoded = codec.decode(data)
                bpp = len(data) * 8 / (pixels.shape[0] * pixels.shape[1])
                quality = psnr(decoded, pixels), ms_ssim(decoded, pixels)
                results.append(Result(codec.name, path.name, level, len(data), bpp, *quality))
                done()
        except CondicError as error:
            raise type(error)(f"{path}: {error}") from error
    return results


def means(results: Sequence[Result]) -> dict[str, list[Mean]]:
    """Per codec, one mean per level."""
    groups: dict[str, dict[int, list[Result]]] = {}
    for result in results:
        groups.setdefault(result.codec, {}).setdefault(result.level, []).append(result)
    return {
        codec: [
            Mean(level, mean(r.bpp for r in rows), mean(r.psnr for r in rows), mean(r.ms_ssim for r in rows))
            for level, rows in levels.items()
        ]
        for codec, levels in groups.items()
    }


def curves(points: Sequence[Mean]) -> tuple[Curve, Curve]:
    """A codec's curves of mean PSNR and of mean MS-SSIM in dB."""
    bpp = tuple(p.bpp for p in points)
    return Curve(bpp, tuple(p.psnr for p in points)), Curve(bpp, tuple(decibels(p.ms_ssim) for p in points))


def compare(codec: str, measured: dict[str, list[Mean]], anchors: Iterable[Anchor]) -> list[Comparison]:
    """One measured codec against the other measured ones, then against published curves."""
    own_psnr, own_ms_ssim = curves(measured[codec])
    rows = []
    for name, points in measured.items():
        if name != codec:
            other_psnr, other_ms_ssim = curves(points)
            rows.append(
                Comparison(codec, name, RUN_HERE, bd_rate(other_psnr, own_psnr), bd_rate(other_ms_ssim, own_ms_ssim))
            )
    for anchor in anchors:
        by_ms_ssim = bd_rate(anchor.ms_ssim, own_ms_ssim) if anchor.ms_ssim else None
        rows.append(Comparison(codec, anchor.name, anchor.source, bd_rate(anchor.psnr, own_psnr), by_ms_ssim))
    return rows
