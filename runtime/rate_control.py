"""Choosing the quality level for a size or a distortion, in at most eight coding passes.

A pass codes the image at one level. What does not depend on the level is done once for all passes: converting the
image, and the prior's analysis, which depends on it by a final gain alone. The rest of the analysis is conditioned on
the decoded prior, so another level has another one. Passes are chosen by interpolation, since the logarithm of the size
and the PSNR are nearly linear in the level; three or four decide as a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from condic.errors import InputError, within_memory
from condic.runtime.arrays import Pixels
from condic.runtime.bitstream import Limits
from condic.runtime.codec import Codec
from condic.runtime.host import Quantised
from condic.runtime.manifest import QUALITY_LEVELS
from condic.runtime.once import LevelIndependent
from condic.runtime.pictures import as_picture
from condic.runtime.timings import Timings

DEFAULT_QUALITY = 32
_LARGEST_FILE = 2**62
MOST_PASSES = 8
_SLOPES = {"bytes": 1 / 14, "psnr": 1 / 6}
"""Octaves of size, and dB, that a level adds, roughly: the first guesses start from them, the results do not."""


@dataclass(frozen=True)
class Chosen:
    """A file, its level, and how many times the image was coded to find it."""

    data: bytes
    quality: int
    passes: int


@within_memory()
def encode_for(
    codec: Codec,
    image: Any,
    *,
    quality: int | None = None,
    max_bytes: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    timings: Timings | None = None,
    limits: Limits | None = None,
) -> Chosen:
    """Compresses an image at a level (default 32), or at the best one for a limit; at most one may be given.

    `max_bytes`: the largest level whose file has no more bytes. `bpp`: the same in bits per pixel. `psnr`: the smallest
    level whose picture has at least so many dB over RGB. Where sizes and PSNR do not rise with every level, as of a few
    pixels or one colour, it is the best of the levels tried. Raises InputError, also where none meets the limit, and
    BackendError.
    """
    if sum(x is not None for x in (quality, max_bytes, bpp, psnr)) > 1:
        raise InputError("quality, max_bytes, bpp and psnr exclude each other: give one")
    picture = as_picture(image, limits)
    for name, value in (("max_bytes", max_bytes), ("bpp", bpp), ("psnr", psnr)):
        if value is not None and not _is_finite(value):
            raise InputError(f"{name} {value!r:.40} is not a finite number")
    if bpp is not None:
        max_bytes = int(min(bpp * picture.rgb.shape[0] * picture.rgb.shape[1] / 8, _LARGEST_FILE))
    if max_bytes is None and psnr is None:
        level = DEFAULT_QUALITY if quality is None else quality
        return Chosen(codec.encode(picture, level, timings, limits), level, passes=1)
    once, files, reached = LevelIndependent(codec, picture, timings), dict[int, bytes](), dict[int, float]()

    def code(level: int) -> Quantised:
        quantised = codec.host.quantise(picture, level, timings, once.tensors(level))
        files[level] = codec.pack(quantised, timings)
        return quantised

    def octaves(level: int) -> float:
        code(level)
        return math.log2(len(files[level]))

    def decibels(level: int) -> float:
        quantised = code(level)
        pixels = codec.host.reconstruct(quantised, timings)
        reached[level] = _psnr(replace(picture, rgb=pixels).colours(), picture.colours())
        return reached[level]

    if max_bytes is not None:
        level = last_level(octaves, math.log2(max(max_bytes, 1)), _SLOPES["bytes"])
        if level < 0:
            given = "" if bpp is None else f" ({bpp} bits per pixel)"
            smallest = min(files, key=lambda k: len(files[k]))
            raise InputError(
                f"{max_bytes} bytes{given} are too few: of those tried, level {smallest} has the fewest, "
                f"{len(files[smallest])}"
            )
    else:
        assert psnr is not None
        last_level(decibels, math.nextafter(psnr, -math.inf), _SLOPES["psnr"])
        best = max(reached, key=lambda k: reached[k])
        if reached[best] < psnr:
            raise InputError(
                f"{psnr} dB are out of reach: of those tried, level {best} has the most, {reached[best]:.2f} dB"
            )
        level = min(level for level, decibels in reached.items() if decibels >= psnr)
    return Chosen(files[level], level, len(files))


def last_level(measure: Callable[[int], float], bound: float, slope: float) -> int:
    """The last level whose measure, which rises with the level, is at most `bound`; -1 if there is none.

    Measures at most `MOST_PASSES` levels, among them the one returned and the next. Each is next to where a line puts
    the bound, on its far side from the level before, as long as the remaining passes could still tell all levels
    between apart by halves. The line goes through the last level and the nearest on the other side of the bound, or
    the one before while none is there. Where the measure does not quite rise, the result is a level within the bound
    whose successor is beyond it.
    """
    low, high = -1, QUALITY_LEVELS
    level = guess = QUALITY_LEVELS // 2
    values: dict[int, float] = {}
    while high - low > 1:
        most = 2 ** (MOST_PASSES - len(values) - 1)
        before, level = level, min(max(guess, low + 1, high - most), high - 1, low + most)
        reached = measure(level)
        within = reached <= bound
        beyond = high if within else low
        other = beyond if beyond in values else before
        if other in values and (rise := (reached - values[other]) / (level - other)) > 0:
            slope = rise
        values[level] = reached
        low, high = (level, high) if within else (low, level)
        step = (bound - reached) / slope
        guess = math.floor(level + min(max(step, -QUALITY_LEVELS), QUALITY_LEVELS)) + within
    return low


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _psnr(a: Pixels, b: Pixels) -> float:
    """PSNR in dB; a band of rows at a time, since wide numbers take room."""
    bands = [slice(top, top + 256) for top in range(0, len(a), 256)]
    total = sum(float(np.square(a[band].astype(np.int32) - b[band]).sum(dtype=np.int64)) for band in bands)
    return 10 * math.log10(255**2 * a.size / max(total, 1e-9))
