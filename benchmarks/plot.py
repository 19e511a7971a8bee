"""Rate-distortion curves as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from condic.benchmarks.bd_rate import Curve

_COLOURS = ("#0b62a4", "#d1495b", "#3a7d44", "#8d5a97", "#c77f1a", "#4a4e69", "#17888c", "#a05a2c")
_DASHES = ("--", ":", "-.")
_ROOM = 1.15


@dataclass(frozen=True)
class Line:
    """A curve with its name. `measured` ones are solid, published ones dashed; the first one is emphasised."""

    name: str
    curve: Curve
    measured: bool


def draw(lines: Sequence[Line], quality: str) -> str:
    """An SVG element, `quality` its vertical axis; both axes cover the first curve with some room around it."""
    own = lines[0].curve
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = figure.add_subplot()
    for k, line in enumerate(lines):
        cycle, place = divmod(max(k - 1, 0), len(_COLOURS))
        axes.plot(
            line.curve.bpp,
            line.curve.quality,
            label=line.name,
            color="black" if k == 0 else _COLOURS[place],
            linestyle="-" if line.measured else _DASHES[cycle % len(_DASHES)],
            linewidth=2.2 if k == 0 else 1.2,
            marker="o" if line.measured else None,
            markersize=3.5,
            zorder=3 if k == 0 else 2,
        )
    span = max(own.quality) - min(own.quality)
    axes.set_xlim(0, max(own.bpp) * _ROOM)
    axes.set_ylim(min(own.quality) - (_ROOM - 1) * span, max(own.quality) + (_ROOM - 1) * span)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(quality)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "condic", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
