"""What the commands of condic-bench share: options, and lists given as one word."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condic.command_line import Command, threads_option
from condic.command_line import with_setup as with_setup_of
from condic.files import check_target, is_standard_output
from condic.runtime.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from condic.runtime.codec import Codec


@dataclass(frozen=True)
class Setup:
    """The options that commands about one model share."""

    model: str
    backend: str
    threads: int
    json_out: Path | None

    def open(self) -> Codec:
        """The model on the backend."""
        from condic.runtime.codec import load_codec

        return load_codec(self.model, self.backend, self.threads)

    def save(self, kind: str, content: Any) -> None:
        """Writes results with their origin where --json asks for it."""
        save(self.json_out, kind, content)


def save(json_out: Path | None, kind: str, content: Any) -> None:
    """Writes results with their origin to a file, if one is given."""
    from condic.benchmarks.results import Results, origin, write_results

    if json_out:
        write_results(json_out, Results(origin(kind), content))


model_option = click.option("--model", default=DEFAULT_MODEL, help="Shipped model, or path of a bundle.")
json_option = click.option(
    "--json", "json_out", type=click.Path(path_type=Path), callback=lambda *given: _writable(given[-1], ".json"),
    help="File for all results, NAME.json; replaced if it exists.",
)  # fmt: skip
html_option = functools.partial(
    click.option, "--html", "html_out", type=click.Path(path_type=Path),
    callback=lambda *given: _writable(given[-1], ".html"), help="File for a report, NAME.html; replaced if it exists.",
)  # fmt: skip
images_argument = click.argument(
    "paths", type=click.Path(path_type=Path), metavar="IMAGE_OR_DIR...", nargs=-1, required=True
)


with_setup = with_setup_of(
    Setup,
    model_option,
    click.option("--backend", default="ort", help="ort, openvino, torch or auto."),
    threads_option,
    json_option,
)
"""Adds the options of `Setup` to a command, which takes them as its argument `setup`."""


def levels_option(default: str) -> Callable[[Command], Command]:
    """The option --levels, a tuple of them."""
    return click.option("--levels", callback=_parse_levels, default=default, help="Quality levels, 0..63.")


def names_option(flag: str, default: str, help_text: str) -> Callable[[Command], Command]:
    """An option whose value is a list of names, a tuple of them, each once."""
    return click.option(flag, default=default, help=help_text, callback=lambda *given: split(given[-1]))


def split(value: str) -> tuple[str, ...]:
    """The words between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _writable(target: Path | None, suffix: str) -> Path | None:
    """Fails before any work is done if nothing can be written there. Results replace older ones, but no other files."""
    if target and is_standard_output(target):
        raise click.BadParameter("standard output has the tables; give a file name")
    if target:
        check_target(target, (suffix,))
    return target


def _parse_levels(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Levels such as 0,16,32: sorted, each once."""
    try:
        levels = tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of levels; write it like 0,16,32") from error
    if not 0 <= levels[0] <= levels[-1] <= 63:
        raise click.BadParameter(f"{value!r}: levels are 0..63")
    return levels
