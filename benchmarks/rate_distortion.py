"""Real files and the images decoded from them: rate, PSNR and MS-SSIM, and the rate against other codecs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from condic.benchmarks.anchors import Anchor
from condic.benchmarks.bd_rate import LEAST_POINTS, BdRate, Curve, bd_rate
from condic.benchmarks.images import read_rgb
from condic.benchmarks.metrics import check_size, decibels, ms_ssim, psnr
from condic.benchmarks.peers import ImageCodec
from condic.files import named

RUN_HERE = "run here"
"""The source of a curve that is measured, not published."""


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


@dataclass(frozen=True)
class RateDistortion:
    """A whole run. `settings` and `means` are by codec, the one under test first; `images` are all single results.

    `bd_rate` compares that one with the others and, on Kodak's images, with published curves.
    """

    settings: Mapping[str, str]
    images: tuple[Result, ...]
    means: Mapping[str, tuple[Mean, ...]]
    bd_rate: tuple[Comparison, ...]

    @property
    def codec(self) -> str:
        """The codec under test."""
        return next(iter(self.settings))

    @property
    def published(self) -> bool:
        """Whether published curves are compared too."""
        return any(c.source != RUN_HERE for c in self.bd_rate)

    def gaps(self) -> list[str]:
        """Why BD-rates are missing, in lines."""
        lines = [
            f"{codec}: BD-rates need {LEAST_POINTS} levels, not {len(points)}"
            for codec, points in self.means.items()
            if len(points) < LEAST_POINTS
        ]
        missing = (c.psnr is None or (c.ms_ssim is None and c.source == RUN_HERE) for c in self.bd_rate)
        if not lines and any(missing):
            lines.append(f"-: the curves have no quality in common, or fewer than {LEAST_POINTS} points that rise")
        if not self.published:
            lines.append("not Kodak's 24 images: published curves are left out")
        return lines


def check_sizes(images: Sequence[Path]) -> None:
    """Raises InputError, before anything takes time, for an image that is too small to measure, or none."""
    for path in images:
        with named(path):
            check_size(read_rgb(path))


def measure(codec: ImageCodec, images: Sequence[Path], begin: Callable[[str], None]) -> list[Result]:
    """Codes every image at every level; `begin` is called before each of them. Errors name the image."""
    results = []
    for path in images:
        pixels = read_rgb(path)
        with named(path):
            for level in codec.levels:
                begin(f"{codec.name} {level} {path.name}")
                data = codec.encode(pixels, level)
                decoded = codec.decode(data)
                bpp = len(data) * 8 / (pixels.shape[0] * pixels.shape[1])
                quality = psnr(decoded, pixels), ms_ssim(decoded, pixels)
                results.append(Result(codec.name, path.name, level, len(data), bpp, *quality))
    return results


def means(results: Sequence[Result]) -> dict[str, tuple[Mean, ...]]:
    """Per codec, one mean per level."""
    groups: dict[str, dict[int, list[Result]]] = {}
    for result in results:
        groups.setdefault(result.codec, {}).setdefault(result.level, []).append(result)
    return {
        codec: tuple(
            Mean(level, mean(r.bpp for r in rows), mean(r.psnr for r in rows), mean(r.ms_ssim for r in rows))
            for level, rows in levels.items()
        )
        for codec, levels in groups.items()
    }


def curves(points: Sequence[Mean]) -> tuple[Curve, Curve]:
    """A codec's curves of mean PSNR and of mean MS-SSIM in dB."""
    bpp = tuple(p.bpp for p in points)
    return Curve(bpp, tuple(p.psnr for p in points)), Curve(bpp, tuple(decibels(p.ms_ssim) for p in points))


def compare(codec: str, measured: Mapping[str, Sequence[Mean]], anchors: Iterable[Anchor]) -> list[Comparison]:
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
