"""Quantised tables of Gaussians and mixtures of Gaussians for the entropy coder.

They are made once, when a model is exported, and stored with it. They are never recomputed at run time: `math.erfc` may
differ in its last bit between C libraries, and a table that differs between encoder and decoder destroys the stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOTAL = 1 << 15
"""The frequencies of a table add up to this."""

MAX_TAIL = 2.0**-16
"""The radius is the smallest that leaves less probability than this to the escape symbol."""

MAX_RADIUS = 1023
"""No radius is larger, whatever the scale."""

_Mixture = Sequence[tuple[float, float]]
"""Weight and standard deviation of each Gaussian."""


def gaussian_tables(
    scales: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Tables for rounded zero-mean variables, each a Gaussian or a mixture of Gaussians.

    A table of radius R gives frequencies to the symbols -R..R and, last, to the escape symbol. The probability of q is
    that of the interval [q - 1/2, q + 1/2]. Frequencies are integers of at least 1, symmetric in q, and within 1e-6 bit
    of the shortest expected code length that such integers allow.

    Args:
        scales: standard deviations, float64 [S] or, of the M Gaussians of each mixture, [S, M]; S from 1 to 256.
        weights: of the Gaussians of a mixture, float64 [S, M], not negative; each row adds up to 1.

    Returns:
        cdf: uint16, the cumulative frequencies of all tables, one after the other; table s has 2 * radius[s] + 3
            entries, from 0 to 32768.
        radius: int32 [S].

    Raises:
        ValueError: a scale is not positive and finite, there are none or more than 256, or weights do not go with them.
    """
    scales = np.asarray(scales, np.float64)
    weights = np.ones(scales.shape) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != scales.shape:
        raise ValueError(f"weights of shape {weights.shape} do not go with scales of shape {scales.shape}")
    if scales.ndim == 1:
        scales, weights = scales[:, None], weights[:, None]
    if scales.ndim != 2 or not 1 <= len(scales) <= 256 or not scales.size:
        raise ValueError(f"scales must be 1 to 256 values or rows of values, not of shape {scales.shape}")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError("every scale must be positive and finite")
    if not ((weights >= 0).all() and np.allclose(weights.sum(axis=1), 1)):
        raise ValueError("the weights of each scale must be at least 0 and add up to 1")
    cdfs, radii = [], []
    for mixture in zip(weights.tolist(), scales.tolist(), strict=True):
        gaussians = list(zip(*mixture, strict=True))
        radius = _radius(gaussians)
        magnitudes, escape = _frequencies(gaussians, radius)
        frequencies = [*magnitudes[:0:-1], *magnitudes, escape]
        cdfs.append(np.concatenate([[0], np.cumsum(frequencies)]))
        radii.append(radius)
    return np.concatenate(cdfs).astype(np.uint16), np.array(radii, np.int32)


def _tail(gaussians: _Mixture, x: float) -> float:
    """Probability of a magnitude above `x`."""
    return sum(weight * math.erfc(x / (sigma * math.sqrt(2))) for weight, sigma in gaussians)


def _radius(gaussians: _Mixture) -> int:
    low, high = 0, MAX_RADIUS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _tail(gaussians, middle + 0.5) < MAX_TAIL else (middle + 1, high)
    return low


def _frequencies(gaussians: _Mixture, radius: int) -> tuple[list[int], int]:
    """Frequencies of the magnitudes 0..radius (one of each pair of signs) and of the escape symbol.

    A unit of frequency is worth p * log2((f + 1) / f) bits to a symbol of probability p. So each unit that rounding
    leaves over goes where it is worth most, and each that is missing is taken where it is worth least.
    """
    tails = [_tail(gaussians, m - 0.5) for m in range(1, radius + 2)]
    pairs = np.array([tails[m - 1] - tails[m] for m in range(1, radius + 1)])
    probability = np.array([1 - tails[0], *(pairs / 2), tails[radius]])
    symbols = np.array([1] + [2] * radius + [1])  # of each probability
    frequency = np.maximum(1, np.floor(probability * TOTAL)).astype(np.int64)

    while (rest := TOTAL - int(frequency @ symbols)) > 0:
        worth = probability * np.log2((frequency + 1) / frequency)
        worth[symbols > rest] = -1
        frequency[np.argmax(worth)] += 1
    while (rest := TOTAL - int(frequency @ symbols)) < 0:
        worth = probability * np.log2(frequency / np.maximum(frequency - 1, 1))
        worth[(frequency == 1) | (symbols > -rest)] = np.inf
        frequency[np.argmin(worth)] -= 1
    return frequency[:-1].tolist(), int(frequency[-1])
