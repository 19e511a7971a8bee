"""What the commands share: options, the opened model, and how results are reported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condic import command_line
from condic.command_line import Rare
from condic.runtime.shipped import DEFAULT_MODEL, model_of

if TYPE_CHECKING:
    from condic.runtime.bitstream import Header, Limits
    from condic.runtime.codec import Codec
    from condic.runtime.timings import Timings

Facts = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """The shared options."""

    model: str | None
    backend: str
    threads: int
    max_pixels: int
    as_json: bool

    @property
    def limits(self) -> Limits:
        """Limits on image sizes."""
        from condic.runtime.bitstream import Limits

        return Limits(pixels=self.max_pixels)

    def model_for(self, header: Header) -> str:
        """The model that was asked for, else the one that a file's header names. Raises BundleError."""
        return model_of(header.bundle_id) if self.model is None else self.model

    @property
    def model_to_encode(self) -> str:
        """The model that was asked for, else the default one."""
        return DEFAULT_MODEL if self.model is None else self.model

    def open(self, model: str) -> Codec:
        """A model on the backend, opened once."""
        return _opened(model, self.backend, self.threads)

    def report(self, facts: Facts, text: str, *, aside: bool = False) -> None:
        """Prints one JSON object, or the text for people; `aside`, on standard error."""
        report(facts, text, self.as_json, aside=aside)


def report(facts: Facts, text: str, as_json: bool, *, aside: bool = False) -> None:
    """Prints one JSON object, or the text for people; `aside`, on standard error."""
    click.echo(json.dumps(facts) if as_json else text, err=aside)


class _FilePath(click.Path):
    """A `Path`, of which `-` is standard input or output; `./-` is the file of that name, as with other programs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click has it: a `Path` by itself takes `./-` for `-`."""
        if not str(value):
            self.fail("an empty name", param, ctx)
        path: Any = super().convert(value, param, ctx)
        return path.absolute() if str(path) == "-" != value else path


file_path = _FilePath(readable=False, path_type=Path)  # what cannot be read is said where it is read
source_argument = click.argument("source", type=file_path, metavar="IN")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
max_pixels_option = click.option(
    "--max-pixels", cls=Rare, type=click.IntRange(min=1), default=2**28, help="Largest image accepted."
)
model_option = click.option(
    "--model", help=f"Shipped model, or path of a bundle; default {DEFAULT_MODEL}, or what a file names."
)
with_setup = command_line.with_setup(
    Setup,
    model_option,
    click.option(
        "--backend",
        cls=Rare,
        default="auto",
        help="ort, openvino, torch, or the first of them that works; on a GPU tensorrt or ort-cuda.",
    ),
    command_line.threads_option,
    max_pixels_option,
    json_option,
)
"""Decorates a command with the shared options; it takes them as `setup`."""


@cache
def _opened(model: str, backend: str, threads: int) -> Codec:
    with command_line.interruptions_held():
        from condic.runtime.codec import load_codec

        return load_codec(model, backend, threads)


def coding_facts(size: int, header: Header, codec: Codec, timings: Timings, seconds: float) -> Facts:
    """What is reported of a file that was encoded or decoded."""
    stages = {name: round(value, 5) for name, value in timings.seconds.items()} | {"total": round(seconds, 5)}
    return {
        "bytes": size, "bpp": size * 8 / (header.width * header.height), "width": header.width,
        "height": header.height, "quality": header.quality, "backend": codec.backend_name, "seconds": stages,
    }  # fmt: skip
