"""Repeated runs: how long they take, how much that varies, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from condic.runtime.timings import Timings

REST = "rest"
"""The stage of what no other stage counts: the interpreter between them."""


@dataclass(frozen=True)
class Spread:
    """Seconds of some runs: their median and quartiles (all three the same after one run)."""

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Direction:
    """Encoding or decoding: seconds of a run, those of the first run ever, and median seconds of each stage.

    Stages are graphs by role, those of `timings.BETWEEN_GRAPHS`, and `rest`; a codec that has none has no entry.
    """

    seconds: Spread
    first: float
    stages: Mapping[str, float]


def spread(seconds: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated between runs."""
    if len(seconds) == 1:
        return Spread(seconds[0], seconds[0], seconds[0], 1)
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    return Spread(middle, low, high, len(seconds))


def measure(run: Callable[[int, Timings], object], runs: int, limit: float = float("inf")) -> Direction:
    """Times `run(k, timings)` for k = 0..runs-1, after two runs of k = 0 that warm up (one, if it takes long).

    No run starts later than `limit` seconds after the first, but one is always timed.
    """
    begin = time.perf_counter()
    run(0, Timings())
    first = time.perf_counter() - begin
    if first < limit / 4:
        run(0, Timings())
    totals: list[float] = []
    stages: list[dict[str, float]] = []
    while len(totals) < runs and (not totals or time.perf_counter() - begin < limit):
        timings = Timings()
        start = time.perf_counter()
        run(len(totals), timings)
        totals.append(time.perf_counter() - start)
        stages.append(timings.seconds)
    names = dict.fromkeys(name for row in stages for name in row)
    medians = {name: median(row.get(name, 0.0) for row in stages) for name in names}
    if medians:
        medians[REST] = median(t - sum(row.values()) for t, row in zip(totals, stages, strict=True))
    return Direction(spread(totals), first, medians)
