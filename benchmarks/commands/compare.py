"""condic-bench compare."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from condic.command_line import FAILED, Number
from condic.errors import InputError


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--threshold", type=Number(min=0), default=5, help="Percent by which a time may rise.")
def compare(before: Path, after: Path, threshold: float) -> None:
    """Says what became faster or slower between two runs of throughput, as --json wrote them.

    A difference counts if the quartiles of the two runs do not overlap. Exit code 1 if something takes more than
    --threshold percent longer, or fails now. With fewer than four runs on both sides the noise is unknown: then the
    percentage alone counts.
    """
    from condic.benchmarks.comparison import compare, differences
    from condic.benchmarks.display import show_table
    from condic.benchmarks.results import read_results
    from condic.benchmarks.throughput import Throughput

    first, second = (read_results(path, {"throughput": Throughput}) for path in (before, after))
    changes = compare(first.content, second.content)
    for line in differences(first.content, second.content, (first.origin.machine, second.origin.machine)):
        click.echo(line)
    rows = []
    for change in changes:
        times = [f"{s.median:.4f} ({s.low:.4f}..{s.high:.4f})" if s else "-" for s in (change.before, change.after)]
        percent = f"{change.percent:+.1f} %" if change.before and change.after else "-"
        rows.append((change.name, change.resolution, change.direction, *times, percent, change.verdict()))
    show_table("seconds: median (quartiles)", ("codec", "size", "", "before", "after", "change", ""), rows)
    if not any((change.before and change.after) or change.failed for change in changes):
        raise InputError("the two runs have measured nothing in common")
    worse = [change for change in changes if change.regressed(threshold)]
    for change in worse:
        why = change.failed or f"{change.percent:+.1f} %"
        click.echo(f"regression: {change.name} {change.resolution} {change.direction}: {why}")
    unknown = [change for change in changes if change.undecided and change.percent > threshold]
    for change in unknown:
        click.echo(f"too few runs: {change.name} {change.resolution} {change.direction}: repeat it 4 times or more")
    if worse or unknown:
        sys.exit(FAILED)
    click.echo(f"no regression beyond the noise and {threshold:g} %")
