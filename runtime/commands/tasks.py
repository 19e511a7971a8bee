"""One file or several through a command: what becomes what, the progress bar, and the summary."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from condic.command_line import FAILED, say
from condic.errors import CondicError, InputError
from condic.files import exists, is_of_no_room, is_standard_output
from condic.runtime.commands.setup import Facts, Setup, file_path

_MOST_CLASHES = 3


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
    """Adds the arguments `paths` and the options `out_dir`, `force` and `skip`."""
    for decorate in (
        click.option("--force", is_flag=True, help="Replace files that exist."),
        click.option("--out-dir", type=file_path, help="Folder for the results of several IN."),
        click.option("--skip", is_flag=True, help="With --out-dir, pass over IN whose results exist."),
        click.argument("paths", type=file_path, nargs=-1, required=True, metavar="IN... OUT"),
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True)
class Plan:
    """Tasks, whether they are several, and how many more there would be, whose results exist.

    `skip`: those whose results are made meanwhile, by another run, are left out, too.
    """

    tasks: tuple[Task, ...]
    several: bool
    skipped: int = 0
    skip: bool = False


def plan(paths: Sequence[Path], out_dir: Path | None, suffix: str, *, force: bool, skip: bool) -> Plan:
    """IN OUT, or any number of IN whose results go to `out_dir` under their own names with `suffix`.

    `skip` leaves out those that exist there. Raises click.UsageError for any other number of paths or a skip without
    `out_dir`, and InputError where two results would have one name.
    """
    if skip and (force or out_dir is None):
        raise click.UsageError("--skip goes with --out-dir, and without --force")
    if out_dir is None:
        if len(paths) != 2:
            given = "one path" if len(paths) == 1 else f"{len(paths)} paths"
            raise click.UsageError(f"{given}: give IN and OUT, or any number of IN and --out-dir")
        return Plan((Task(*paths),), several=False)
    tasks: dict[Path, Task] = {}
    clashes: list[str] = []
    for source in paths:
        if str(source) == "-":
            raise click.UsageError("standard input has no name to go by in --out-dir; give OUT")
        task = Task(source, out_dir / (source.stem + suffix))
        if (other := tasks.setdefault(task.target, task)) is not task:
            clashes.append(f"{other.source} and {source} would both become {task.target}")
    if clashes:
        more = f" (and {len(clashes) - _MOST_CLASHES} more)" if len(clashes) > _MOST_CLASHES else ""
        raise InputError(f"{', '.join(clashes[:_MOST_CLASHES])}{more}; use two folders")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out_dir}: cannot be made a folder ({error.strerror}); give another --out-dir") from error
    left = tuple(task for task in tasks.values() if not (skip and exists(task.target)))
    return Plan(left, several=True, skipped=len(tasks) - len(left), skip=skip)


def perform(plan: Plan, work: Callable[[Task], Result], setup: Setup) -> None:
    """Does the tasks and reports. One of several that fails is named, and the others are done: exit code 1.

    A full disk is the end, though: the rest would take its time in vain.
    """
    if not plan.several:
        (task,) = plan.tasks
        result = work(task)
        setup.report(result.facts, result.text, aside=is_standard_output(task.target))
        return
    done: list[Facts] = []
    failed: list[Facts] = []
    skipped, start = plan.skipped, time.perf_counter()
    shown = sys.stderr is not None and sys.stderr.isatty()
    tasks = plan.tasks
    with click.progressbar(tasks, file=sys.stderr) if shown else nullcontext(tasks) as steps:
        for task in steps:
            if plan.skip and exists(task.target):
                skipped += 1
                continue
            try:
                with _warnings_named(task):
                    facts = work(task).facts
                done.append({"source": str(task.source), "target": str(task.target)} | facts)
            except CondicError as error:
                if plan.skip and exists(task.target):
                    skipped += 1
                    continue
                failed.append({"source": str(task.source), "error": str(error)})
                if is_of_no_room(error):
                    break
            except MemoryError:  # outside of what names the file
                failed.append({"source": str(task.source), "error": f"{task.source}: not enough memory"})
    for failure in failed:
        say("condic-run", failure["error"])
    size = sum(facts["bytes"] for facts in done)
    left = plan.skipped + len(tasks) - len(done) - len(failed) - skipped
    others = "".join(f", {count} {what}" for count, what in ((skipped, "skipped"), (left, "not tried")) if count)
    text = f"{len(done)} done, {len(failed)} failed{others}; {size} compressed bytes, "
    facts = {"done": done, "failed": failed, "skipped": skipped, "not_tried": left}
    setup.report(facts, text + f"{time.perf_counter() - start:.1f} s")
    if failed:
        sys.exit(FAILED)


@contextmanager
def _warnings_named(task: Task) -> Iterator[None]:
    """Within it, warnings that do not begin with a file of the task do so with its source."""
    show = warnings.showwarning

    def named(message: Warning | str, *given: Any) -> None:
        text = str(message)
        is_named = text.startswith((f"{task.source}: ", f"{task.target}: "))
        show(text if is_named else f"{task.source}: {text}", *given)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = named  # type: ignore[assignment]
        yield
