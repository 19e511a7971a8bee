"""Results on a terminal: progress while measuring, then tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error; call what it yields before each of `total` parts, with the part's name."""
    current, begun = "", False
    bar = click.progressbar(range(total), label=title, item_show_func=lambda _: current, file=sys.stderr)

    def begin(name: str) -> None:
        nonlocal current, begun
        current = name
        bar.update(int(begun))
        begun = True
        bar.render_progress()

    with bar:
        yield begin
        bar.update(int(begun))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A title and a table in plain text: the first column to the left, numbers to the right."""
    click.echo(f"\n{title}\n" + "\n".join(table_lines(columns, rows)))


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, two blanks between columns."""
    cells = [columns, *rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        .rstrip()
        for row in cells
    ]  # fmt: skip
