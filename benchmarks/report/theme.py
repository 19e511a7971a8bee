"""Matplotlib figures as SVG that takes its colours and its type from the page, in light, dark and print."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
"""Colours that stand for the page's: text, lesser text, grid lines, background."""
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}
SERIES = 12
"""The number of colours for series."""
_STYLE: Any = {
    "axes.edgecolor": MUTED, "axes.facecolor": "none", "axes.grid": True, "axes.labelcolor": INK, "axes.labelsize": 10,
    "axes.linewidth": 0.8, "axes.spines.right": False, "axes.spines.top": False, "axes.titlecolor": INK,
    "axes.titlelocation": "left", "axes.titlesize": 11, "axes.titleweight": "bold", "axes.axisbelow": True,
    "figure.facecolor": "none", "font.family": "sans-serif", "font.size": 10, "grid.color": GRID,
    "grid.linewidth": 0.8, "legend.fontsize": 9, "legend.frameon": False, "savefig.facecolor": "none",
    "svg.fonttype": "none", "svg.hashsalt": "condic", "text.color": INK, "xtick.color": MUTED, "xtick.labelcolor": INK,
    "xtick.labelsize": 9, "ytick.color": MUTED, "ytick.labelcolor": INK, "ytick.labelsize": 9,
    "text.parse_math": False,  # names may hold any character
}  # fmt: skip
_serial = count()


def series(k: int) -> str:
    """The colour that stands for the page's colour of series k."""
    return f"#0500{k % SERIES:02x}"


@contextmanager
def themed() -> Iterator[None]:
    """Figures drawn within have the page's look."""
    with mpl.rc_context(_STYLE):
        yield


def panels(width: float, height: float, columns: int = 1, *, sharex: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """A figure in inches with axes side by side that share their vertical axis; draw within `themed`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, sharex=sharex, sharey=True)
    return figure, list(axes[0])


def svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element, described by `label`; draw within `themed`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"#0[1-4]0[1-4]0[1-4]", lambda m: f"var(--{_NAMES[m[0]]})", text)
    text = re.sub(r"#0500([0-9a-f]{2})", lambda m: f"var(--series-{int(m[1], 16)})", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    prefix = f"f{next(_serial)}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', lambda m: m[1] + prefix, text)
    text = re.sub(r' (width|height)="[0-9.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
