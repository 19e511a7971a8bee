"""condic-bench throughput."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from condic.benchmarks.options import html_option, json_option, names_option
from condic.benchmarks.peers import PEERS, split_level
from condic.command_line import FAILED, Interruption, Number, threads_option
from condic.errors import InputError
from condic.runtime.backends import backend_names
from condic.runtime.shipped import find_bundle, shipped_bundles

if TYPE_CHECKING:
    from condic.benchmarks.throughput import Configuration, Throughput

AUTO = "auto"
_REFERENCE = "torch"
"""A backend that is there to agree with, not to be fast: `auto` leaves it out."""


@click.command()
@names_option("--models", "all", "Shipped models or paths of bundles; all: every shipped one; none.")
@names_option("--backends", AUTO, "Backends, such as ort,openvino; auto: all that work here but torch.")
@names_option("--peers", ",".join(PEERS), "Other codecs to run beside them, such as jpeg or jpeg:90; or none.")
@names_option("--resolutions", "512x768,720p,1080p,4k", "Sizes: 720p, 1080p, 4k, WIDTHxHEIGHT.")
@click.option("--images", type=click.Path(path_type=Path), help="A photograph or a folder of them (the first 8 are "
              "used) instead of the one that comes with condic.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 64), default=1, help="Images coded at the same time.")
@threads_option
@click.option("--quality", type=click.IntRange(0, 63), default=32, help="Level of condic's codecs.")
@click.option("--repeat", type=click.IntRange(min=1), default=10, help="Timed runs, after two that warm up.")
@click.option("--time-limit", type=Number(min=0, min_open=True, max=86400), default=60,
              help="Seconds after which a direction's runs end; after four times as many, the process.")  # fmt: skip
@click.option("--compressai", type=click.Path(path_type=Path), help="Python of an environment that has CompressAI; "
              "default: this one.")  # fmt: skip
@json_option
@html_option()
def throughput(
    models: tuple[str, ...],
    backends: tuple[str, ...],
    peers: tuple[str, ...],
    resolutions: tuple[str, ...],
    images: Path | None,
    batch: int,
    threads: int,
    quality: int,
    repeat: int,
    time_limit: float,
    compressai: Path | None,
    json_out: Path | None,
    html_out: Path | None,
) -> None:
    """Times encoding and decoding end to end, for each model, backend and resolution, and other codecs beside them.

    From pixels in memory to the bytes of a file in memory, and back, on photographs scaled to each size. Every
    configuration runs in a process of its own. Ctrl-C keeps what is done. Exit code 1 if a configuration failed, or a
    backend or peer that was asked for by name is not installed.
    """
    from condic.benchmarks.photographs import find_photographs
    from condic.benchmarks.results import Results, origin, write_results
    from condic.benchmarks.throughput import Plan, Throughput, run_all

    begun = origin("throughput")
    photographs = tuple(str(path.resolve()) for path in find_photographs(images))
    plan = Plan(photographs, batch, threads, quality, repeat, time_limit)
    configurations = _configurations(models, backends, peers, resolutions)
    run, interrupted = Throughput(plan), 0
    python = shutil.which(compressai) if compressai else sys.executable
    if python is None:
        raise InputError(f"{compressai}: no such program; --compressai takes the Python of an environment")
    from condic.benchmarks.display import progress

    try:
        with progress("timing", len(configurations)) as begin:
            for run in run_all(plan, configurations, begin, python):
                if json_out:
                    write_results(json_out, Results(begun, run))
    except Interruption as error:
        interrupted = error.code
    _show(run, begun.machine.describe())
    if html_out:
        from condic.benchmarks.report import write_report

        write_report([Results(begun, run)], html_out)
    if interrupted:
        click.echo("condic-bench: interrupted; what was done is kept", err=True)
        sys.exit(interrupted)
    named = (backends if _is_given("backends") else ()) + (peers if _is_given("peers") else ())
    if any(row.error for row in run.rows) or any(name in run.missing for name in named):
        sys.exit(FAILED)


def _configurations(
    models: Sequence[str], backends: Sequence[str], peers: Sequence[str], resolutions: Sequence[str]
) -> list[Configuration]:
    """All of them, by resolution. Raises InputError, naming what is valid, for an unknown name."""
    from condic.benchmarks.photographs import parse_resolution
    from condic.benchmarks.throughput import Configuration

    models = [] if models == ("none",) else list(shipped_bundles()) if models == ("all",) else models
    models = [model if Path(model).exists() else model.replace(":", "-") for model in models]
    for model in models:
        find_bundle(model)
    known = backend_names()
    if backends == (AUTO,):
        backends = [name for name in known if name != _REFERENCE]
    if AUTO in backends:
        raise InputError(f"--backends {','.join(backends)}: {AUTO} stands alone; give it, or names")
    if unknown := [name for name in backends if name not in known]:
        raise InputError(f"unknown backend {unknown[0]!r}; known: {AUTO}, {', '.join(known)}")
    peers = () if peers == ("none",) else peers
    for peer in peers:
        split_level(peer)
    sizes = [parse_resolution(text) for text in resolutions]
    found = [
        configuration
        for size in sizes
        for configuration in (
            *(Configuration(model, backend, size) for model in models for backend in backends),
            *(Configuration(peer, None, size) for peer in peers),
        )
    ]
    if not found:
        raise InputError("nothing to measure: give models with backends, or peers, and resolutions")
    return found


def _show(run: Throughput, machine: str) -> None:
    from condic.benchmarks.display import show_table
    from condic.benchmarks.throughput_tables import conditions, failures, tables

    click.echo("\n".join([machine, *conditions(run)]))
    for table in tables(run):
        show_table(table.title, table.columns, table.rows)
    for line in failures(run):
        click.echo(line)


def _is_given(parameter: str) -> bool:
    return click.get_current_context().get_parameter_source(parameter) == ParameterSource.COMMANDLINE
