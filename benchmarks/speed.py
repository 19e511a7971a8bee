"""Seconds of encoding and decoding in this process, entropy coding included, loading the model not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from condic.runtime.codec import Codec
from condic.runtime.timings import Timings

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Direction:
    """Encoding or decoding one image: median seconds of the whole and of each stage over the same runs.

    Stages are the graphs by role; `rest` is everything between them, the entropy coder included where it is no stage
    of its own.
    """

    seconds: float
    stages: dict[str, float]


@dataclass(frozen=True)
class Speed:
    """One image at one level."""

    file: str
    width: int
    height: int
    level: int
    bytes: int
    encode: Direction
    decode: Direction

    @property
    def megapixels(self) -> float:
        """Size of the image in 10^6 pixels."""
        return self.width * self.height / 1e6


def measure_speed(codec: Codec, file: str, image: Pixels, level: int, repeats: int) -> tuple[Speed, bytes, Pixels]:
    """Times `repeats` runs after one that warms up; also the stream and the decoded image uint8 [H, W, 3]."""
    data, encode = _repeat(lambda timings: codec.encode(image, level, timings), repeats)
    decoded, decode = _repeat(lambda timings: codec.decode(data, timings).image, repeats)
    height, width = image.shape[:2]
    return Speed(file, width, height, level, len(data), encode, decode), data, decoded


def throughput(speeds: Sequence[Speed]) -> tuple[float, float]:
    """Megapixels per second over all images: encoding, decoding."""
    megapixels = sum(s.megapixels for s in speeds)
    return megapixels / sum(s.encode.seconds for s in speeds), megapixels / sum(s.decode.seconds for s in speeds)


def _repeat(run: Callable[[Timings], T], repeats: int) -> tuple[T, Direction]:
    result = run(Timings())
    totals: list[float] = []
    stages: list[dict[str, float]] = []
    for _ in range(repeats):
        timings = Timings()
        start = time.perf_counter()
        result = run(timings)
        totals.append(time.perf_counter() - start)
        stages.append(timings.seconds | {"rest": totals[-1] - sum(timings.seconds.values())})
    medians = {name: median(s.get(name, 0.0) for s in stages) for name in stages[0]}
    return result, Direction(median(totals), medians)
