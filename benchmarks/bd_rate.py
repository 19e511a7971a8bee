"""Bjontegaard's rate difference between two rate-distortion curves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.interpolate import PchipInterpolator

LEAST_POINTS = 4
"""Of a curve, as Bjontegaard has it: with two or three the difference is that of the interpolation."""


@dataclass(frozen=True)
class Curve:
    """Points of a codec: bits per pixel, and quality in dB (for MS-SSIM, -10 log10(1 - s))."""

    bpp: tuple[float, ...]
    quality: tuple[float, ...]


@dataclass(frozen=True)
class BdRate:
    """Mean difference in rate at equal quality, in percent of the reference's; below zero, the other codec needs less.

    `low` and `high` bound the quality, in dB, that both curves reach: the mean is over that range.
    """

    percent: float
    low: float
    high: float


def bd_rate(reference: Curve, curve: Curve) -> BdRate | None:
    """Rate of `curve` against `reference` (Bjontegaard, VCEG-M33, 2001); None if they have no quality in common, or one
    has fewer than four points.

    The logarithm of the rate is interpolated over quality by monotone cubics (PCHIP), as the common test conditions of
    JVET have it, and averaged over the common range of quality. Points that cost more than another without being
    better are left out.
    """
    first, second = _rising(reference), _rising(curve)
    if min(len(first), len(second)) < LEAST_POINTS:
        return None
    low, high = max(first[0][0], second[0][0]), min(first[-1][0], second[-1][0])
    if low >= high:
        return None
    means = [float(_log_rate(points).integrate(low, high)) / (high - low) for points in (first, second)]
    return BdRate(100 * (math.exp(means[1] - means[0]) - 1), low, high)


def in_cells(rate: BdRate | None) -> tuple[str, str]:
    """A rate's difference and its range of quality, for a table."""
    return (f"{rate.percent:+.1f} %", f"{rate.low:.1f} to {rate.high:.1f}") if rate else ("-", "")


def _rising(curve: Curve) -> list[tuple[float, float]]:
    """(quality, bpp) with both rising strictly."""
    points: list[tuple[float, float]] = []
    for bpp, quality in sorted(zip(curve.bpp, curve.quality, strict=True), key=lambda point: (point[0], -point[1])):
        if math.isfinite(quality) and (not points or (quality > points[-1][0] and bpp > points[-1][1])):
            points.append((quality, bpp))
    return points


def _log_rate(points: list[tuple[float, float]]) -> PchipInterpolator:
    return PchipInterpolator([q for q, _ in points], [math.log(r) for _, r in points])
