"""One file or several through a command: what becomes what, the progress bar, and the summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from condic.command_line import FAILED
from condic.errors import CondicError, InputError
from condic.files import is_standard_output
from condic.runtime.commands.setup import Facts, Setup, file_path


@dataclass(frozen=True)
class Task:
    """A file and what it becomes; `-` is standard input or output."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """A task that was done: its facts, and the line about it."""

    facts: Facts
    text: str


def in_out_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the arguments `paths` and the options `out_dir` and `force`."""
    for decorate in (
        click.option("--force", is_flag=True, help="Replace files that exist."),
        click.option("--out-dir", type=file_path, help="Folder for the results of several IN."),
        click.argument("paths", type=file_path, nargs=-1, required=True, metavar="IN... OUT"),
    ):
        command = decorate(command)
    return command


def plan(paths: Sequence[Path], out_dir: Path | None, suffix: str) -> list[Task]:
    """IN OUT, or any number of IN whose results go to `out_dir` under their own names with `suffix`.

    Raises click.UsageError for any other number of paths, and InputError where two results would have one name.
    """
    if out_dir is None:
        if len(paths) != 2:
            given = "one path" if len(paths) == 1 else f"{len(paths)} paths"
            raise click.UsageError(f"{given}: give IN and OUT, or any number of IN and --out-dir")
        return [Task(*paths)]
    tasks: dict[Path, Task] = {}
    for source in paths:
        if str(source) == "-":
            raise click.UsageError("standard input has no name to go by in --out-dir; give OUT")
        target = out_dir / (source.stem + suffix)
        if target in tasks:
            raise InputError(f"{tasks[target].source} and {source} would both become {target}; use two folders")
        tasks[target] = Task(source, target)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out_dir}: cannot be made a folder ({error.strerror}); give another --out-dir") from error
    return list(tasks.values())


def perform(tasks: Sequence[Task], work: Callable[[Task], Result], setup: Setup, *, several: bool) -> None:
    """Does the tasks and reports. One of `several` that fails is named, and the others are done: exit code 1."""
    if not several:
        (task,) = tasks
        result = work(task)
        setup.report(result.facts, result.text, aside=is_standard_output(task.target))
        return
    done: list[Facts] = []
    failed: list[Facts] = []
    start = time.perf_counter()
    shown = sys.stderr is not None and sys.stderr.isatty()
    with click.progressbar(tasks, file=sys.stderr) if shown else nullcontext(tasks) as steps:
        for task in steps:
            try:
                facts = work(task).facts
                done.append({"source": str(task.source), "target": str(task.target)} | facts)
            except CondicError as error:
                failed.append({"source": str(task.source), "error": str(error)})
            except MemoryError:  # outside of what names the file
                failed.append({"source": str(task.source), "error": f"{task.source}: not enough memory"})
    for failure in failed:
        click.echo(f"condic-run: {failure['error']}", err=True)
    size = sum(facts["bytes"] for facts in done)
    text = f"{len(done)} done, {len(failed)} failed; {size} compressed bytes, {time.perf_counter() - start:.1f} s"
    setup.report({"done": done, "failed": failed}, text)
    if failed:
        sys.exit(FAILED)
