"""Throughput as tables of text: what the terminal, the page of benchmarks and the report show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from condic.benchmarks.throughput import Measurement, Row, Throughput
from condic.benchmarks.timing import REST, Direction
from condic.runtime.timings import BETWEEN_GRAPHS

OUTSIDE = (*BETWEEN_GRAPHS, REST)
"""The stages that are no graph."""


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column is a name, the others are numbers."""

    kind: Literal["speed", "memory", "stages"]
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(run: Throughput) -> list[Table]:
    """Speed; loading and memory; stages. Only those that have rows."""
    done = [(row, row.measured) for row in run.rows if row.measured]
    speed = Table(
        "speed",
        "end to end: seconds (median, quartiles), images and 10^6 pixels per second",
        ("codec", "size", "encode s", "quartiles", "img/s", "MP/s", "decode s", "quartiles", "img/s", "MP/s", "level",
         "bpp", "runs"),
        tuple(_speed(run, row, m) for row, m in done),
    )  # fmt: skip
    extra = {
        "GPU MB": [_megabytes(m.device_memory) for _, m in done],
        "engines built s": ["-" if m.build_seconds is None else _short(m.build_seconds) for _, m in done],
    }
    extra = {column: cells for column, cells in extra.items() if any(cell != "-" for cell in cells)}
    loading = Table(
        "memory",
        "seconds to load and of the first run; MB of the process before it loads the codec, after, and at most",
        ("codec", "size", "load s", "first encode s", "first decode s", "before", "loaded", "encode", "decode", *extra),
        tuple((*_loading(*pair), *more) for pair, *more in zip(done, *extra.values(), strict=True)),
    )
    return [table for table in (speed, loading, *_ratios(run), *_stages(run)) if table.rows]


def conditions(run: Throughput) -> list[str]:
    """How the numbers were taken, in lines."""
    plan = run.plan
    threads = f"{plan.threads} threads" if plan.threads else "as many threads as each codec likes"
    names = ", ".join(Path(path).name for path in plan.photographs)
    lines = [
        f"{threads}, batch of {plan.batch}, condic at level {plan.quality}, up to {plan.runs} runs after two that warm "
        "up, each configuration in a process of its own",
        f"photographs: {names}",
    ]
    enlarged = {row.resolution.name: row.measured.enlarged for row in run.rows if row.measured}
    if large := [f"{name} {factor:.1f}x" for name, factor in enlarged.items() if factor > 1]:
        lines.append(f"enlarged for {', '.join(large)}: smoother than photographs taken at these sizes")
    return lines


def failures(run: Throughput) -> list[str]:
    """What failed and what is missing, in lines."""
    lines = [f"failed: {row.name} {row.resolution.name}: {row.error}" for row in run.rows if row.error]
    return [*lines, *(f"missing: {name}: {reason}" for name, reason in run.missing.items())]


def families(direction: Direction, graphs: Sequence[str]) -> dict[str, float]:
    """Seconds per stage with numbered graphs (`context_0`, `context_1`, ..) summed up."""
    sums: dict[str, float] = {}
    for stage, seconds in direction.stages.items():
        family = re.sub(r"_?\[?\d+\]?$", "", stage) if stage in graphs else stage
        sums[family] = sums.get(family, 0.0) + seconds
    return sums


def outside(direction: Direction) -> float:
    """Share of the time that is in no graph."""
    return sum(direction.stages.get(name, 0.0) for name in OUTSIDE) / direction.seconds.median


def _speed(run: Throughput, row: Row, measured: Measurement) -> tuple[str, ...]:
    def side(direction: Direction) -> tuple[str, ...]:
        seconds, images = direction.seconds, run.plan.batch / direction.seconds.median
        quartiles = f"{_short(seconds.low)}..{_short(seconds.high)}"
        return _short(seconds.median), quartiles, _short(images), _short(images * row.resolution.megapixels)

    bpp = measured.bytes * 8 / (row.resolution.megapixels * 1e6)
    runs = min(measured.encode.seconds.runs, measured.decode.seconds.runs)
    return (
        row.name, row.resolution.name, *side(measured.encode), *side(measured.decode), str(measured.level),
        f"{bpp:.2f}", str(runs),
    )  # fmt: skip


def _loading(row: Row, measured: Measurement) -> tuple[str, ...]:
    memory = measured.memory
    sizes = (memory.before, memory.loaded, memory.encode, memory.decode) if memory else ()
    seconds = (measured.load, measured.encode.first, measured.decode.first)
    return row.name, row.resolution.name, *map(_short, seconds), *(tuple(map(_megabytes, sizes)) or ("-",) * 4)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.0f}"


def _ratios(run: Throughput) -> Iterator[Table]:
    """Seconds of all other codecs by those of the fastest of condic's, per size."""
    rows = []
    for here in _by_resolution(run):
        own = [(row, m) for row, m in here if row.backend]
        if not own or len(here) == 1:
            continue
        first, fastest = min(own, key=lambda pair: pair[1].encode.seconds.median + pair[1].decode.seconds.median)
        for row, m in here:
            if row is not first:
                encode = m.encode.seconds.median / fastest.encode.seconds.median
                decode = m.decode.seconds.median / fastest.decode.seconds.median
                rows.append((row.name, row.resolution.name, _short(encode), _short(decode), first.name))
    yield Table(
        "speed",
        "seconds relative to those of condic's fastest backend",
        ("codec", "size", "encode", "decode", "relative to"),
        tuple(rows),
    )


def _stages(run: Throughput) -> Iterator[Table]:
    """Per size, a row per stage and a column per codec and direction."""
    for here in _by_resolution(run):
        sides = [
            (f"{row.name} {name}", direction, m.graphs)
            for row, m in here if m.graphs
            for name, direction in (("encode", m.encode), ("decode", m.decode))
        ]  # fmt: skip
        times = [families(direction, graphs) for _, direction, graphs in sides]
        names = dict.fromkeys(name for each in times for name in each)
        ordered = (*(n for n in names if n not in OUTSIDE), *(n for n in OUTSIDE if n in names))
        rows = [
            (name.replace("_", " "), *(f"{1e3 * each[name]:.1f}" if name in each else "" for each in times))
            for name in ordered
        ]
        rows.append(("outside graphs", *(f"{100 * outside(direction):.1f} %" for _, direction, _ in sides)))
        yield Table(
            "stages",
            f"{here[0][0].resolution.name}: milliseconds per stage (median)",
            ("stage", *(name for name, _, _ in sides)),
            tuple(rows) if sides else (),
        )


def _by_resolution(run: Throughput) -> list[list[tuple[Row, Measurement]]]:
    """The rows that were measured, size by size."""
    groups: dict[str, list[tuple[Row, Measurement]]] = {}
    for row in run.rows:
        if row.measured:
            groups.setdefault(row.resolution.name, []).append((row, row.measured))
    return list(groups.values())


def _short(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
