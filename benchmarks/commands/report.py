"""condic-bench report."""

from __future__ import annotations

from pathlib import Path

import click

from condic.benchmarks.options import html_option


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@html_option(required=True)
def report(results: tuple[Path, ...], html_out: Path) -> None:
    """Shows RESULTS, files that --json of throughput, rd, matrix or pairs has written, on one HTML page.

    The page needs no network.
    """
    from condic.benchmarks.report import read_all, write_report

    write_report(read_all(results), html_out)
    click.echo(f"{html_out}: {html_out.stat().st_size:,} bytes")
