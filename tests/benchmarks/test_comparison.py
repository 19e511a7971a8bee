"""Faster, slower, noise; what failed; what only one run has; exit codes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from condic.benchmarks.comparison import compare, differences
from condic.benchmarks.machine import Machine
from condic.benchmarks.photographs import Resolution
from condic.benchmarks.results import Origin, Results, write_results
from condic.benchmarks.throughput import Measurement, Plan, Row, Throughput
from condic.benchmarks.timing import Direction, Spread

MACHINE = Machine("a processor", 2, 2**34, None, "Linux x86_64", "3.11", {"numpy": "2.0"})
SIZE = Resolution("720p", 1280, 720)


def row(codec: str, median: float, noise: float = 0.01) -> Row:
    side = Direction(Spread(median, median * (1 - noise), median * (1 + noise), 10), median, {})
    return Row(codec, None, SIZE, Measurement("", 1, 1.0, 1.0, 0.1, side, side, None, ()), None)


def run(*rows: Row) -> Throughput:
    return Throughput(Plan(("a.png",), 1, 2, 32, 10, 60.0), rows)


@pytest.mark.parametrize(
    ("median", "noise", "verdict"),
    [(1.1, 0.01, "slower"), (0.9, 0.01, "faster"), (1.1, 0.2, "same"), (1.005, 0.01, "same")],
)
def test_a_difference_counts_where_quartiles_do_not_overlap(median: float, noise: float, verdict: str):
    changes = compare(run(row("a", 1.0, noise)), run(row("a", median, noise)))
    assert [change.verdict() for change in changes] == [verdict, verdict]
    assert changes[0].percent == pytest.approx(100 * (median - 1))


def test_a_regression_is_beyond_noise_and_threshold():
    (change, _) = compare(run(row("a", 1.0)), run(row("a", 1.1)))
    assert change.regressed(5)
    assert not change.regressed(11)
    (noisy, _) = compare(run(row("a", 1.0, 0.2)), run(row("a", 1.1, 0.2)))
    assert not noisy.regressed(5)


def test_what_fails_now_is_a_regression_whatever_the_threshold():
    failed = replace(row("a", 1.0), measured=None, error="out of luck")
    (change, _) = compare(run(row("a", 1.0)), run(failed))
    assert change.verdict() == "fails"
    assert change.regressed(1e9)
    assert compare(run(failed), run(failed)) == []
    (mended, _) = compare(run(failed), run(row("a", 1.0)))
    assert not mended.regressed(0)


def test_what_is_not_installed_any_more_is_a_regression():
    gone = replace(run(row("b", 1.0)), missing={"a": "it does not load"})
    changes = compare(run(row("a", 1.0), row("b", 1.0)), gone)
    assert [(c.name, c.verdict(), c.regressed(1e9)) for c in changes][::2] == [
        ("a", "fails", True),
        ("b", "same", False),
    ]


def test_a_few_runs_are_no_measure_of_noise():
    (change, _) = compare(run(short("a", 1.0)), run(short("a", 9.0)))
    assert (change.verdict(), change.undecided, change.regressed(5)) == ("too few runs", True, False)


def short(codec: str, median: float) -> Row:
    """Of three times, all the same."""
    side = Direction(Spread(median, median, median, 3), median, {})
    return Row(codec, None, SIZE, Measurement("", 1, 1.0, 1.0, 0.1, side, side, None, ()), None)


@pytest.mark.parametrize(("median", "verdict"), [(1.06, "same"), (0.94, "same"), (10.0, "slower"), (0.5, "faster")])
def test_a_few_runs_are_as_noisy_as_those_that_they_are_compared_with(median: float, verdict: str):
    """What became much slower fits fewer runs into the time limit."""
    (change, _) = compare(run(row("a", 1.0, 0.04)), run(short("a", median)))
    assert (change.verdict(), change.regressed(5)) == (verdict, verdict == "slower")
    (change, _) = compare(run(short("a", 1.0)), run(row("a", median, 0.04)))
    assert change.verdict() == verdict


def test_runs_with_nothing_in_common_are_refused(tmp_path: Path):
    for name, content in (("a", run(row("a", 1.0))), ("b", run(row("b", 1.0)))):
        write_results(tmp_path / f"{name}.json", Results(Origin("throughput", "", "", "", MACHINE), content))
    command = [sys.executable, "-m", "condic.benchmarks", "compare", tmp_path / "a.json", tmp_path / "b.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "condic-bench: the two runs have measured nothing in common\n")


def test_what_only_one_run_has_is_listed():
    changes = compare(run(row("a", 1.0)), run(row("b", 1.0)))
    assert [(c.name, c.verdict()) for c in changes][::2] == [("a", "only before"), ("b", "only after")]


def test_other_machines_libraries_and_photographs_are_told():
    other = replace(MACHINE, cpu="another", python="0.1", libraries={"numpy": "2.1"})
    moved = replace(run(), plan=replace(run().plan, photographs=("b.png",), runs=3))
    lines = differences(run(), moved, (MACHINE, other))
    assert [line.split(":")[0] for line in lines] == [
        "other machine", "Python", "numpy", "other photographs, batch, threads or quality"
    ]  # fmt: skip
    assert differences(run(), replace(run(), plan=replace(run().plan, runs=3)), (MACHINE, MACHINE)) == []


def test_the_program_ends_with_code_1_where_it_cannot_tell(tmp_path: Path):
    for name, median in (("a.json", 1.0), ("b.json", 1.04), ("c.json", 1.06)):
        content = run(row("a", 1.0), short("b", median))
        write_results(tmp_path / name, Results(Origin("throughput", "", "", "", MACHINE), content))
    for other, code in (("b.json", 0), ("c.json", 1)):
        words = ["compare", "a.json", other]
        done = subprocess.run(
            [sys.executable, "-m", "condic.benchmarks", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "too few runs: b 720p decode: repeat it 4 times or more"


@pytest.mark.parametrize(("threshold", "code"), [("5", 1), ("20", 0)])
def test_the_program_ends_with_code_1_on_a_regression(tmp_path: Path, threshold: str, code: int):
    origin = Origin("throughput", "condic-bench throughput", "0.1.0", "2026-01-01 00:00", MACHINE)
    for name, median in (("a.json", 1.0), ("b.json", 1.1)):
        write_results(tmp_path / name, Results(origin, run(row("jpeg", median))))
    words = ["compare", "a.json", "b.json", "--threshold", threshold]
    done = subprocess.run(
        [sys.executable, "-m", "condic.benchmarks", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "+10.0 %" in done.stdout
    assert ("regression: jpeg 720p encode" in done.stdout) == bool(code)
