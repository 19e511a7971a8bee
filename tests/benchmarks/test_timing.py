"""Repeated runs: warm-up apart, quartiles, the limit in seconds, what is left between stages."""

from __future__ import annotations

import time

import pytest

from condic.benchmarks.timing import REST, measure, spread
from condic.runtime.timings import Timings


def test_quartiles_are_those_of_the_runs():
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.low, found.median, found.high, found.runs) == (2.0, 3.0, 4.0, 5)


def test_one_run_has_no_spread():
    assert spread([7.0]).low == spread([7.0]).high == 7.0


def test_two_runs_warm_up_and_are_not_counted():
    seen: list[int] = []

    def run(k: int, timings: Timings) -> None:
        seen.append(k)
        time.sleep(0.2 if len(seen) == 1 else 0.001)

    direction = measure(run, runs=3)
    assert seen == [0, 0, 0, 1, 2]
    assert direction.seconds.runs == 3
    assert direction.seconds.high < 0.2 < direction.first
    assert direction.stages == {}


def test_runs_end_after_the_limit_but_one_is_timed():
    direction = measure(lambda k, timings: time.sleep(0.02), runs=1000, limit=0.01)
    assert direction.seconds.runs == 1


def test_stages_and_the_rest_are_the_whole():
    def run(k: int, timings: Timings) -> None:
        with timings.stage("graph"):
            time.sleep(0.02)
        time.sleep(0.01)

    direction = measure(run, runs=3)
    assert direction.stages["graph"] >= 0.02
    assert direction.stages[REST] >= 0.01
    assert sum(direction.stages.values()) == pytest.approx(direction.seconds.median, rel=0.5)
