"""Writes the references: docs/cli.md from the programs' commands, docs/python.md from signatures and docstrings.

`python docs/make_reference.py` rewrites what is between the markers of both pages; what is above them is written by
hand. A test compares the pages with what this makes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import click

import condic
import condic.pillow
from condic import errors
from condic.benchmarks.cli import cli as bench
from condic.command_line import Rare
from condic.export.cli import export
from condic.runtime.cli import cli as run
from condic.training.cli import train

DOCS = Path(__file__).parent
BEGIN, END = "<!-- made by docs/make_reference.py -->\n", "<!-- end -->\n"
PROGRAMS: dict[str, click.Command] = {
    "condic-run": run, "condic-export": export, "condic-train": train, "condic-bench": bench
}  # fmt: skip
_FUNCTIONS = ("encode", "decode", "encode_many", "decode_many", "open", "open_codec")
_CLASSES = {
    "CodedImage": ("decode", "preview"),
    "Codec": ("encode", "decode", "encode_many", "decode_many", "preview", "backend", "backend_name"),
    "Decoded": ("latents_sha256",),
    "Metadata": ("sizes",),
    "Limits": (),
}
_MADE_BY_CONDIC = ("Decoded",)
"""Classes whose instances are results: nobody needs to know how to make one."""


def replaced(page: str, text: str) -> str:
    """The page with other text between its markers."""
    return page[: page.index(BEGIN) + len(BEGIN)] + text + page[page.index(END) :]


def cli_reference() -> str:
    """Every program and command with its arguments and options; condic-run's introduction is written by hand."""
    lines: list[str] = []
    for name, program in PROGRAMS.items():
        if program is not run:
            lines += _command("#", name, program)
        if isinstance(program, click.Group):
            for subname, command in program.commands.items():
                lines += _command("##", f"{name} {subname}", command)
    return "\n".join(lines)


def python_reference() -> str:
    """The public names of condic."""
    lines: list[str] = []
    for name in _FUNCTIONS:
        lines += _function(f"condic.{name}", getattr(condic, name))
    for name, members in _CLASSES.items():
        kind = getattr(condic, name)
        lines += [f"### `condic.{name}`", ""]
        if is_dataclass(kind) and kind.__name__ not in _MADE_BY_CONDIC:
            lines += ["```python", *_signature(name, kind), "```", ""]
        lines += [*_text(kind), ""]
        for member in members:
            lines += _member(f"{name}.{member}", inspect.getattr_static(kind, member))
    lines += ["### Errors and warnings", "", "| name | is a | for |", "|---|---|---|"]
    for name, kind in vars(errors).items():
        if name in condic.__all__ and isinstance(kind, type):
            parent = "`, `".join(base.__name__ for base in kind.__bases__)
            lines.append(f"| `condic.{name}` | `{parent}` | {' '.join(inspect.cleandoc(kind.__doc__ or '').split())} |")
    lines += ["", *_function("condic.pillow.register", condic.pillow.register)]
    return "\n".join(lines)


def _command(level: str, name: str, command: click.Command) -> Iterator[str]:
    arguments = [_argument(p) for p in command.params if isinstance(p, click.Argument)]
    if isinstance(command, click.Group):
        arguments.append("[COMMAND]" if command.invoke_without_command else "COMMAND")
    options = [p for p in command.params if isinstance(p, click.Option) and p.expose_value]
    usage = [name, *(["[OPTIONS]"] if options else []), *arguments]
    yield from (f"{level} {name}", "", f"    {' '.join(usage)}", "")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        as_it_is = paragraph.startswith("\b")
        yield from ([f"    {line}" for line in paragraph.splitlines()[1:]] if as_it_is else paragraph.splitlines())
        yield ""
    if options:
        yield from ("| option | value | |", "|---|---|---|")
        for option in options:
            names = ", ".join(f"`{x}`" for x in (*option.opts, *option.secondary_opts))
            yield f"| {names} | {_value(option)} | {_help(option)} |"
        yield ""


def _argument(argument: click.Argument) -> str:
    choices = argument.type.choices if isinstance(argument.type, click.Choice) else ()
    several = "..." if argument.nargs == -1 else ""
    return argument.metavar or "|".join(map(str, choices)) or str(argument.name).upper() + several


def _value(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        return ""
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        number = "integer" if isinstance(kind, click.IntRange) else "number"
        low = "" if kind.min is None else f" above {kind.min}" if kind.min_open else f" from {kind.min}"
        return number + low + (f" to {kind.max}" if kind.max is not None else "")
    return {"float": "number"}.get(kind.name, kind.name)


def _help(option: click.Option) -> str:
    text = option.help or ""
    if option.required:
        text += " Required."
    elif isinstance(option.default, str | int | float | Path) and not option.is_flag and option.default != "":
        text += f" Default: {option.default}."
    return text + (" (Listed by `--help-all`.)" if isinstance(option, Rare) else "")


def _function(name: str, function: Callable[..., Any]) -> list[str]:
    return [
        f"### `{name}`",
        "",
        "```python",
        *_signature(name.rpartition(".")[2], function),
        "```",
        "",
        *_text(function),
        "",
    ]


def _member(name: str, member: Any) -> list[str]:
    if isinstance(member, property):
        return [f"#### `{name}`", "", *_text(member), ""]
    return [f"#### `{name}`", "", "```python", *_signature(name, member), "```", "", *_text(member), ""]


def _signature(name: str, function: Callable[..., Any]) -> list[str]:
    """One line if it fits, else a line per parameter; annotations as they stand in the source."""
    parts, star = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts, star = [*parts, "*"], True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{parameter.name}: {parameter.annotation}{default}")
    head, tail = f"{name}(", f") -> {inspect.signature(function).return_annotation}"
    line = head + ", ".join(parts) + tail
    return [line] if len(line) <= 100 else [head, *(f"    {part}," for part in parts), tail]


def _text(thing: Any) -> list[str]:
    """A docstring as Markdown: a list of attributes becomes one, everything else is Markdown already."""
    text = inspect.cleandoc(thing.__doc__ or "")
    text = re.sub(r"(?m)^Attributes:\n", "Attributes:\n\n", text)
    return re.sub(r"(?m)^    (\w+): ", r" - `\1`: ", text).splitlines()


def main() -> None:
    """Rewrites both pages."""
    for name, make in (("cli.md", cli_reference), ("python.md", python_reference)):
        page = DOCS / name
        page.write_text(replaced(page.read_text(), make()))


if __name__ == "__main__":
    main()
