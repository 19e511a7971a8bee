"""Two runs of throughput: what became faster or slower beyond the noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from condic.benchmarks.machine import Machine
from condic.benchmarks.throughput import Row, Throughput
from condic.benchmarks.timing import Direction, Spread

_LEAST_RUNS = 4
"""Fewer times have no quartiles to speak of."""


@dataclass(frozen=True)
class Change:
    """One direction of a configuration in two runs. `before` or `after` is None where that run does not have it.

    `failed` is the error of the later run where the earlier one had none.
    """

    name: str
    resolution: str
    direction: str
    before: Spread | None
    after: Spread | None
    failed: str | None = None

    @property
    def percent(self) -> float:
        """By how much the median time rose, in percent; 0 unless both runs have it."""
        return 100 * (self.after.median / self.before.median - 1) if self.before and self.after else 0.0

    @property
    def beyond_noise(self) -> bool:
        """Whether the middle halves of the two runs' times do not overlap: one's quartiles are beyond the other's.

        Of fewer than four times they are taken to be as wide, relative to the median, as the other run's.
        """
        if not self.before or not self.after or self.undecided:
            return False
        before, after = _quartiles(self.before, self.after), _quartiles(self.after, self.before)
        return after[0] > before[1] or after[1] < before[0]

    @property
    def undecided(self) -> bool:
        """Whether neither run has enough times to tell their noise."""
        if not self.before or not self.after:
            return False
        return max(self.before.runs, self.after.runs) < _LEAST_RUNS

    def regressed(self, threshold: float) -> bool:
        """Whether it fails now, or takes more than `threshold` percent longer, beyond the noise."""
        return self.failed is not None or (self.beyond_noise and self.percent > threshold)

    def verdict(self) -> str:
        """In a word or two."""
        if self.failed is not None:
            return "fails"
        if not self.before or not self.after:
            return "only before" if self.before else "only after"
        if self.undecided:
            return "too few runs"
        if not self.beyond_noise:
            return "same"
        return "slower" if self.percent > 0 else "faster"


def compare(before: Throughput, after: Throughput) -> list[Change]:
    """Every configuration of either run, in their order; what failed in both is left out."""
    old, new = ({_key(row): row for row in run.rows} for run in (before, after))
    changes = []
    for key in dict.fromkeys([*old, *new]):
        row = old.get(key) or new[key]
        for direction in ("encode", "decode"):
            first, second = (_seconds(rows.get(key), direction) for rows in (old, new))
            failed = None
            if first:
                failed = new[key].error if key in new else after.missing.get(row.backend or row.codec)
            if first or second:
                changes.append(Change(row.name, row.resolution.name, direction, first, second, failed))
    return changes


def differences(before: Throughput, after: Throughput, machines: tuple[Machine, Machine]) -> list[str]:
    """What makes the two runs hard to compare, in lines."""
    lines = []
    first, second = machines
    if first.describe() != second.describe():
        lines.append(f"other machine: {first.describe()} before, {second.describe()} after")
    old, new = ({"Python": machine.python, **machine.libraries} for machine in machines)
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            lines.append(f"{name}: {old.get(name, 'none')} before, {new.get(name, 'none')} after")
    if replace(before.plan, runs=0, limit=0.0) != replace(after.plan, runs=0, limit=0.0):
        lines.append("other photographs, batch, threads or quality")
    return lines


def _quartiles(times: Spread, other: Spread) -> tuple[float, float]:
    if times.runs >= _LEAST_RUNS:
        return times.low, times.high
    low, high = (times.median * quartile / other.median for quartile in (other.low, other.high))
    return min(low, times.low), max(high, times.high)


def _key(row: Row) -> tuple[str, str | None, int, int]:
    return row.codec, row.backend, row.resolution.width, row.resolution.height


def _seconds(row: Row | None, direction: str) -> Spread | None:
    if row is None or row.measured is None:
        return None
    side: Direction = getattr(row.measured, direction)
    return side.seconds
