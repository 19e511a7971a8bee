"""condic-bench: throughput, rate and distortion, sizes, the coder, exactness, pictures; reports and comparisons."""

from __future__ import annotations

import click

from condic.benchmarks.commands.coder import coder
from condic.benchmarks.commands.compare import compare
from condic.benchmarks.commands.matrix import matrix
from condic.benchmarks.commands.pairs import pairs
from condic.benchmarks.commands.rd import rd
from condic.benchmarks.commands.report import report
from condic.benchmarks.commands.size import size
from condic.benchmarks.commands.throughput import throughput
from condic.command_line import run_program


@click.group(context_settings={"max_content_width": 100, "show_default": True, "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="condic", message="condic %(version)s")
def cli() -> None:
    """Measures speed, file sizes and rate-distortion of condic's codecs, and of others beside them."""


for command in (throughput, rd, size, coder, matrix, pairs, report, compare):
    cli.add_command(command)


def main() -> None:
    """Entry point of `condic-bench`."""
    run_program("condic-bench", cli, extras="bench,cpu")
