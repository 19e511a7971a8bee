"""Choosing the quality level for a size or a distortion, by bisection over the 64 levels.

Every pass codes the image anew: the prior's gain changes with the level, and with it all that is conditioned on the
prior. Six or seven passes decide among 64 levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from condic.errors import InputError
from condic.runtime.bitstream import Limits
from condic.runtime.codec import Codec
from condic.runtime.manifest import QUALITY_LEVELS
from condic.runtime.pictures import Picture, as_picture
from condic.runtime.timings import Timings


@dataclass(frozen=True)
class Chosen:
    """A file, its level, and how many times the image was coded to find it."""

    data: bytes
    quality: int
    passes: int


def encode_within(
    codec: Codec, image: Any, max_bytes: int, timings: Timings | None = None, limits: Limits | None = None
) -> Chosen:
    """The best file of at most `max_bytes`. Raises InputError if even level 0 is larger."""
    search = _Search(codec, image, timings, limits)
    best = search.last(lambda data: len(data) <= max_bytes)
    if best is None:
        raise InputError(f"{max_bytes} bytes are too few: level 0 takes {len(search.files[0])}")
    return Chosen(search.files[best], best, len(search.files))


def encode_at_psnr(
    codec: Codec, image: Any, psnr: float, timings: Timings | None = None, limits: Limits | None = None
) -> Chosen:
    """The smallest file whose picture has at least `psnr` dB. Raises InputError if level 63 has less."""
    search = _Search(codec, image, timings, limits)
    below = search.last(lambda data: search.psnr(data) < psnr)
    level = 0 if below is None else below + 1
    if level == QUALITY_LEVELS:
        raise InputError(f"{psnr} dB are out of reach: level 63 has {search.psnr(search.files[63]):.2f} dB")
    return Chosen(search.file(level), level, len(search.files))


class _Search:
    """Files by level, each made when first asked for."""

    def __init__(self, codec: Codec, image: Any, timings: Timings | None, limits: Limits | None) -> None:
        self._codec, self._timings, self._limits = codec, timings, limits
        self._picture: Picture = as_picture(image, limits)
        self.files: dict[int, bytes] = {}

    def file(self, level: int) -> bytes:
        """The file at a level."""
        if level not in self.files:
            self.files[level] = self._codec.encode(self._picture, level, self._timings, self._limits)
        return self.files[level]

    def psnr(self, data: bytes) -> float:
        """PSNR in dB over RGB of a file's picture."""
        decoded = as_picture(self._codec.decode(data, limits=self._limits).image).rgb
        error = np.mean(np.square(decoded.astype(np.float32) - self._picture.rgb), dtype=np.float64)
        return float(10 * np.log10(255**2 / max(error, 1e-10)))

    def last(self, holds: Callable[[bytes], bool]) -> int | None:
        """The last level at which something holds that holds up to some level and not beyond; None if nowhere."""
        low, high = -1, QUALITY_LEVELS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(self.file(middle)) else (low, middle)
        return None if low < 0 else low
