"""condic-run: encode, decode, preview, info, verify, doctor."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from condic.command_line import FAILED, run_program
from condic.errors import BackendError, CondicError, StreamError
from condic.runtime.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from condic.runtime.bitstream import Limits
    from condic.runtime.codec import Codec
    from condic.runtime.timings import Timings

# Modules that import numpy, Pillow or a backend are imported inside the commands: --help and --version stay instant.


@dataclass(frozen=True)
class Setup:
    """The options that commands share."""

    model: str
    backend: str
    threads: int
    max_pixels: int
    as_json: bool

    @property
    def limits(self) -> Limits:
        """Limits on image sizes."""
        from condic.runtime.bitstream import Limits

        return Limits(pixels=self.max_pixels)

    def open(self) -> Codec:
        """The model on the backend."""
        from condic.runtime.codec import load_codec

        return load_codec(self.model, self.backend, self.threads)

    def report(self, facts: dict[str, Any], text: str) -> None:
        """Prints one JSON object, or the text for people."""
        click.echo(json.dumps(facts) if self.as_json else text)


_OPTIONS = (
    click.option("--model", default=DEFAULT_MODEL, help="Shipped model, or path of a bundle."),
    click.option("--backend", default="ort", help="ort, openvino, torch or auto."),
    click.option("--threads", type=click.IntRange(min=0), default=0, help="0: as many as the backend likes."),
    click.option("--max-pixels", type=click.IntRange(min=1), default=2**28, help="Largest image accepted."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
)
_source = click.argument("source", type=click.Path(path_type=Path), metavar="IN")
_target = click.argument("target", type=click.Path(path_type=Path), metavar="OUT")


def _with_setup(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the shared options and hands them to the command as one `Setup`."""

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        setup = Setup(**{name: arguments.pop(name) for name in Setup.__dataclass_fields__})
        command(setup=setup, **arguments)

    result: Callable[..., None] = wrapped
    for option in reversed(_OPTIONS):
        result = option(result)
    return result


@click.group(context_settings={"max_content_width": 100, "show_default": True, "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="condic", message="condic %(version)s")
def cli() -> None:
    """Encodes and decodes images with learned codecs.

    Exit codes: 0 done, 1 a file failed its verification (or no backend works), 2 bad input or usage, 130 interrupted.
    """


@cli.command()
@_source
@_target
@click.option("-q", "--quality", type=click.IntRange(0, 63), default=32, help="Level: 0 smallest, 63 best.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Best level whose file is no larger; instead of -q.")
@click.option("--bpp", type=click.FloatRange(min=0, min_open=True), help="The same limit in bits per pixel.")
@click.option("--psnr", type=float, help="Smallest level whose picture has so many dB; instead of -q.")
@_with_setup
def encode(
    setup: Setup, source: Path, target: Path, quality: int, max_bytes: int | None, bpp: float | None, psnr: float | None
) -> None:
    """Compresses the image IN into the file OUT.

    A limit on size or distortion is met by bisection over the levels, in six or seven coding passes.
    """
    from condic.runtime.image_files import check_target, read_image, write_file
    from condic.runtime.rate_control import Chosen, encode_at_psnr, encode_within
    from condic.runtime.timings import Timings

    given = click.get_current_context().get_parameter_source("quality") == ParameterSource.COMMANDLINE
    if sum((given, max_bytes is not None, bpp is not None, psnr is not None)) > 1:
        raise click.UsageError("-q, --max-bytes, --bpp and --psnr exclude each other: give one")
    check_target(target)
    image = read_image(source, setup.limits)
    timings = Timings()
    with timings.stage("load"):
        codec = setup.open()
    start = time.perf_counter()
    if bpp is not None:
        max_bytes = max(1, int(bpp * image.width * image.height / 8))
    if max_bytes is not None:
        chosen = encode_within(codec, image, max_bytes, timings, setup.limits)
    elif psnr is not None:
        chosen = encode_at_psnr(codec, image, psnr, timings, setup.limits)
    else:
        chosen = Chosen(codec.encode(image, quality, timings, setup.limits), quality, passes=1)
    data, quality = chosen.data, chosen.quality
    seconds = time.perf_counter() - start
    write_file(target, data)
    facts = {"passes": chosen.passes} | _facts(len(data), (image.width, image.height), quality, codec, timings, seconds)
    text = f"{len(data)} bytes, {facts['bpp']:.3f} bpp, quality {quality}, {seconds:.2f} s, {codec.backend}"
    setup.report(facts, f"{target}: {text}")


@cli.command()
@_source
@_target
@_with_setup
def decode(setup: Setup, source: Path, target: Path) -> None:
    """Decompresses the file IN into the image OUT, in the format of OUT's suffix."""
    _decode(setup, source, target, preview=False)


@cli.command()
@_source
@_target
@_with_setup
def preview(setup: Setup, source: Path, target: Path) -> None:
    """Decompresses only the first stream of IN, a rough image, into OUT."""
    _decode(setup, source, target, preview=True)


@cli.command()
@_source
@_with_setup
def verify(setup: Setup, source: Path) -> None:
    """Decodes IN, checks every checksum, and prints the hash of its latents, equal on all backends.

    Exit code 1 if the file is damaged.
    """
    from condic.runtime.bitstream import read_header
    from condic.runtime.image_files import read_file
    from condic.runtime.timings import Timings

    data, timings = read_file(source), Timings()
    codec = setup.open()
    start = time.perf_counter()
    try:
        digest = codec.decode(data, timings, setup.limits).latents_sha256()
    except StreamError as error:
        click.echo(f"condic-run: {source}: {error}", err=True)
        sys.exit(FAILED)
    seconds = time.perf_counter() - start
    header = read_header(data, setup.limits)
    facts = _facts(len(data), (header.width, header.height), header.quality, codec, timings, seconds)
    setup.report(facts | {"latents_sha256": digest}, f"{source}: intact\nlatents_sha256 {digest}")


@cli.command()
@_source
@_with_setup
def info(setup: Setup, source: Path) -> None:
    """Says what IN is, from its header and sections, without decoding."""
    from condic.runtime.bitstream import ALPHA, Flags, read_stream
    from condic.runtime.image_files import read_file

    data = read_file(source)
    try:
        stream = read_stream(data, setup.limits)
    except StreamError as error:
        raise type(error)(f"{source}: {error}") from error
    header = stream.header
    grey, alpha = bool(header.flags & Flags.GREY), bool(header.flags & Flags.ALPHA)
    sections = {"alpha" if s.kind == ALPHA else f"latent {s.kind}": len(s.payload) for s in stream.sections}
    facts = {
        "bytes": len(data), "bpp": len(data) * 8 / (header.width * header.height), "width": header.width,
        "height": header.height, "quality": header.quality, "grey": grey, "alpha": alpha,
        "model": header.bundle_id.hex(), "sections": sections,
    }  # fmt: skip
    kind = ("grey" if grey else "RGB") + (" with alpha" if alpha else "")
    lines = [
        f"{source}: {header.width}x{header.height} {kind}, quality {header.quality}, {len(data)} bytes, "
        f"{facts['bpp']:.3f} bpp, model {header.bundle_id.hex()}",
        *(f"  {name:10} {size:9} bytes" for name, size in sections.items()),
    ]
    setup.report(facts, "\n".join(lines))


@cli.command()
@_with_setup
def doctor(setup: Setup) -> None:
    """Lists the backends: which work here, with the model's known-answer tests, and why others do not.

    Exit code 1 if none works.
    """
    from dataclasses import replace

    from condic.runtime.backends import backend_names

    rows = []
    for name in backend_names():
        try:
            codec = replace(setup, backend=name).open()
            graphs = codec.bundle.manifest.graphs
            for graph in graphs:
                codec.graphs.load(graph.role)
            passed = sum(graph.precision == "exact" for graph in graphs)
            detail = f"{codec.backend}; {passed} known-answer tests passed"
            rows.append({"backend": name, "works": True, "detail": detail})
        except BackendError as error:
            rows.append({"backend": name, "works": False, "detail": str(error)})
    lines = [f"{row['backend']:10} {'works' if row['works'] else 'no':6} {row['detail']}" for row in rows]
    setup.report({"backends": rows}, "\n".join(lines))
    if not any(row["works"] for row in rows):
        sys.exit(FAILED)


def main() -> None:
    """Entry point of `condic-run`."""
    run_program("condic-run", cli)


def _decode(setup: Setup, source: Path, target: Path, *, preview: bool) -> None:
    from condic.runtime.bitstream import read_header
    from condic.runtime.image_files import SUFFIXES, check_target, read_file, write_image
    from condic.runtime.timings import Timings

    check_target(target, SUFFIXES)
    data, timings = read_file(source), Timings()
    try:
        header = read_header(data, setup.limits)
        with timings.stage("load"):
            codec = setup.open()
        start = time.perf_counter()
        decoded = (codec.preview if preview else codec.decode)(data, timings, setup.limits)
        seconds = time.perf_counter() - start
    except CondicError as error:
        raise type(error)(f"{source}: {error}") from error
    write_image(target, decoded.image)
    facts = _facts(len(data), (header.width, header.height), header.quality, codec, timings, seconds)
    setup.report(facts, f"{target}: {header.width}x{header.height}, {seconds:.2f} s, {codec.backend}")


def _facts(
    size: int, shape: tuple[int, int], quality: int, codec: Codec, timings: Timings, seconds: float
) -> dict[str, Any]:
    width, height = shape
    stages = {name: round(value, 5) for name, value in timings.seconds.items()} | {"total": round(seconds, 5)}
    return {
        "bytes": size, "bpp": size * 8 / (width * height), "width": width, "height": height, "quality": quality,
        "backend": codec.backend_name, "seconds": stages,
    }  # fmt: skip
