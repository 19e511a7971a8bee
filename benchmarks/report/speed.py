"""Throughput in a report: speed per resolution, where the time goes, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from condic.benchmarks.photographs import Resolution
from condic.benchmarks.report.page import Section, figure, note, table
from condic.benchmarks.report.theme import INK, MUTED, PAPER, panels, series, svg, themed
from condic.benchmarks.throughput import Measurement, Row, Throughput
from condic.benchmarks.throughput_tables import OUTSIDE, conditions, failures, families, tables
from condic.benchmarks.timing import Direction

_SHOWN_GRAPHS = 6
"""So many kinds of graphs have a colour of their own in the bars."""
_OTHER = "other graphs"
_MEMORY = ("interpreter, photographs", "codec, loaded", "while it runs")
Done = Sequence[tuple[Row, Measurement]]


def sections(run: Throughput) -> list[Section]:
    """Speed with failures, stages, memory."""
    done = [(row, row.measured) for row in run.rows if row.measured]
    shown = [(t, table(t.columns, t.rows, _sentence(t.title))) for t in tables(run)]
    by_kind = {kind: "".join(text for t, text in shown if t.kind == kind) for kind in ("speed", "memory", "stages")}
    problems = note(*failures(run))
    speed = note(*map(_sentence, conditions(run))) + problems
    if not done:
        return [Section("speed", "Throughput", speed)]
    caption = "10^6 pixels per second, median; whiskers: quartiles. Logarithmic. Thick lines: condic"
    speed += figure(_draw_speed(run, done), caption) + by_kind["speed"]
    sizes = ", ".join(dict.fromkeys(row.resolution.name for row, _ in done))
    found = [Section("speed", f"Throughput at {sizes}", speed)]
    coded = [(row, m) for row, m in done if m.graphs]
    if coded:
        bars = figure(_draw_stages(coded, run.plan.batch), "Milliseconds per 10^6 pixels, median of each stage")
        found.append(Section("stages", "Where the time goes", bars + by_kind["stages"]))
    held = [(row, m) for row, m in done if m.memory]
    plot = figure(_draw_memory(held), "Peak of the process, in MB, encoding (above) and decoding") if held else ""
    found.append(Section("memory", "Memory and loading", plot + by_kind["memory"]))
    return found


def _draw_speed(run: Throughput, done: Done) -> str:
    sizes = sorted({row.resolution for row, _ in done}, key=lambda size: size.megapixels)
    names = list(dict.fromkeys(row.name for row, _ in done))
    with themed():
        plot, axes = panels(9, 4.4, 2)
        for axis, side in zip(axes, ("encode", "decode"), strict=True):
            for k, name in enumerate(names):
                own = [(row, m) for row, m in done if row.name == name]
                _add_line(axis, run.plan.batch, sizes, [(row.resolution, getattr(m, side)) for row, m in own],
                          label=name, color=series(k), linewidth=2.6 if own[0][0].backend else 1.2)  # fmt: skip
            axis.set_title(side)
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_xticks(range(len(sizes)), [size.name for size in sizes])
            axis.margins(x=0.12)
        axes[0].set_ylabel("megapixels per second")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return svg(plot, "Megapixels per second over resolution, encoding and decoding")


def _add_line(
    axis: Axes,
    batch: int,
    sizes: Sequence[Resolution],
    points: Sequence[tuple[Resolution, Direction]],
    **look: Any,
) -> None:
    speeds = [
        [size.megapixels * batch / seconds for seconds in (d.seconds.median, d.seconds.high, d.seconds.low)]
        for size, d in points
    ]
    errors = [[s[0] - s[1] for s in speeds], [s[2] - s[0] for s in speeds]]
    axis.errorbar(
        [sizes.index(size) for size, _ in points], [s[0] for s in speeds], errors, marker="o", markersize=4, capsize=2,
        elinewidth=1, **look,
    )  # fmt: skip


def _draw_stages(coded: Done, batch: int) -> str:
    bars = {side: [_scaled(row, getattr(m, side), m, batch) for row, m in coded] for side in ("encode", "decode")}
    everything = [bar for side in bars.values() for bar in side]
    totals: dict[str, float] = {}
    for bar in everything:
        for name, value in bar.items():
            totals[name] = totals.get(name, 0.0) + value
    graphs = sorted((n for n in totals if n not in OUTSIDE), key=lambda name: -totals[name])
    own = graphs[:_SHOWN_GRAPHS]
    order = [*(n for n in totals if n in own), *([_OTHER] if len(graphs) > len(own) else []),
             *(n for n in OUTSIDE if n in totals)]  # fmt: skip
    labels = [f"{row.name}\n{row.resolution.name}" for row, _ in coded]
    with themed():
        plot, axes = panels(9, max(3.2, 1.3 + 0.42 * len(coded)), 2, sharex=True)
        for axis, (side, each) in zip(axes, bars.items(), strict=True):
            left = [0.0] * len(each)
            for k, name in enumerate(order):
                hidden = [n for n in graphs if n not in own] if name == _OTHER else [name]
                widths = [sum(bar.get(n, 0.0) for n in hidden) for bar in each]
                axis.barh(range(len(each)), widths, 0.62, left, label=name.replace("_", " "), color=series(k),
                          edgecolor=PAPER, linewidth=0.5)  # fmt: skip
                left = [x + width for x, width in zip(left, widths, strict=True)]
            for y, x in enumerate(left):
                axis.text(x, y, f" {x:.0f}", va="center", fontsize=8, color=MUTED)
            axis.set_title(side)
            axis.grid(axis="y", visible=False)
            axis.margins(x=0.1)
            axis.set_xlabel("ms per megapixel")
        axes[0].set_yticks(range(len(labels)), labels)
        axes[0].invert_yaxis()
        handles, names = axes[0].get_legend_handles_labels()
        plot.legend(handles, names, loc="outside right upper")
        return svg(plot, "Milliseconds per megapixel by stage")


def _scaled(row: Row, direction: Direction, measured: Measurement, batch: int) -> Mapping[str, float]:
    """Milliseconds per 10^6 pixels by kind of stage."""
    return {
        name: 1e3 * seconds / (row.resolution.megapixels * batch)
        for name, seconds in families(direction, measured.graphs).items()
    }


def _draw_memory(held: Done) -> str:
    with themed():
        plot, (axis,) = panels(9, 1.0 + 0.3 * len(held))
        for y, (_, m) in enumerate(held):
            assert m.memory
            for offset, peak in ((-0.19, m.memory.encode), (0.19, m.memory.decode)):
                parts = (m.memory.before, max(m.memory.loaded - m.memory.before, 0), max(peak - m.memory.loaded, 0))
                left = 0.0
                for part, color, label in zip(parts, (MUTED, series(1), series(0)), _MEMORY, strict=True):
                    label = "" if y or offset > 0 else label
                    axis.barh(y + offset, part / 1e6, 0.32, left, color=color, label=label, edgecolor=PAPER,
                              linewidth=0.5)  # fmt: skip
                    left += part / 1e6
                axis.text(left, y + offset, f" {left:,.0f}", va="center", fontsize=7, color=INK)
        axis.set_yticks(range(len(held)), [f"{row.name} {row.resolution.name}" for row, _ in held])
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("MB")
        plot.legend(loc="outside right upper")
        return svg(plot, "Peak memory in MB")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
