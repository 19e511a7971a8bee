"""condic-run: encode, decode, preview, info, verify, doctor."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condic.errors import BackendError, CondicError, InputError, IntegrityError
from condic.runtime.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from condic.runtime.codec import Codec, Decoded, Timings

_SETTINGS = {"max_content_width": 100, "show_default": True, "help_option_names": ["-h", "--help"]}
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
_FAILED, _BAD_INPUT = 1, 2


def _options(*wanted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that several commands share."""
    known = {
        "model": click.option("--model", default=DEFAULT_MODEL, help="Shipped model or path of a bundle."),
        "backend": click.option("--backend", default="ort", help="ort, openvino, torch or auto."),
        "threads": click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads; 0: as many as cores."),
        "json": click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
        "pixels": click.option("--max-pixels", type=click.IntRange(min=1), default=2**28, help="Largest image accepted."),
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(wanted):
            command = known[name](command)
        return command

    return decorate


@click.group(context_settings=_SETTINGS)
@click.version_option(package_name="condic", message="condic %(version)s")
def cli() -> None:
    """Encodes and decodes images with learned codecs.

    Exit codes: 0 done, 1 a file failed its verification, 2 bad input or usage.
    """


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="IN")
@click.argument("target", type=click.Path(path_type=Path), metavar="OUT")
@click.option("-q", "--quality", type=click.IntRange(0, 63), default=32, help="Level: 0 smallest, 63 best.")
@_options("model", "backend", "threads", "pixels", "json")
def encode(
    source: Path, target: Path, quality: int, model: str, backend: str, threads: int, max_pixels: int, as_json: bool
) -> None:
    """Compresses the image IN into the file OUT."""
    from condic.runtime.bitstream import Limits
    from condic.runtime.codec import Timings

    _check_folder(target)
    image = _read_image(source, max_pixels)
    timings = Timings()
    with timings.stage("load"):
        codec = _open(model, backend, threads)
    start = time.perf_counter()
    data = codec.encode(image, quality, timings, Limits(pixels=max_pixels))
    seconds = time.perf_counter() - start
    _write(target, data)
    bpp = len(data) * 8 / (image.width * image.height)
    facts = _facts(len(data), image.width, image.height, quality, codec, timings, seconds)
    _report(facts, as_json, f"{target}: {len(data)} bytes, {bpp:.3f} bpp, quality {quality}, {seconds:.2f} s, {codec.backend}")


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="IN")
@click.argument("target", type=click.Path(path_type=Path), metavar="OUT")
@_options("model", "backend", "threads", "pixels", "json")
def decode(source: Path, target: Path, model: str, backend: str, threads: int, max_pixels: int, as_json: bool) -> None:
    """Decompresses the file IN into the image OUT (its suffix says the format)."""
    _decode_to(source, target, "decode", model, backend, threads, max_pixels, as_json)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="IN")
@click.argument("target", type=click.Path(path_type=Path), metavar="OUT")
@_options("model", "backend", "threads", "pixels", "json")
def preview(source: Path, target: Path, model: str, backend: str, threads: int, max_pixels: int, as_json: bool) -> None:
    """Decompresses only the first stream of IN, a rough image, into OUT."""
    _decode_to(source, target, "preview", model, backend, threads, max_pixels, as_json)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE")
@_options("pixels", "json")
def info(source: Path, max_pixels: int, as_json: bool) -> None:
    """Says what FILE is, from its header and sections, without decoding."""
    from condic.runtime.bitstream import ALPHA, Flags, Limits, read_stream

    data = _read(source)
    stream = read_stream(data, Limits(pixels=max_pixels))
    h = stream.header
    sections = {"alpha" if s.kind == ALPHA else f"latent {s.kind}": len(s.payload) for s in stream.sections}
    facts = {
        "bytes": len(data), "bpp": len(data) * 8 / (h.width * h.height), "width": h.width, "height": h.height,
        "quality": h.quality, "grey": bool(h.flags & Flags.GREY), "alpha": bool(h.flags & Flags.ALPHA),
        "model": h.bundle_id.hex(), "sections": sections,
    }  # fmt: skip
    kind = ("grey" if facts["grey"] else "RGB") + (" with alpha" if facts["alpha"] else "")
    parts = ", ".join(f"{name} {size} bytes" for name, size in sections.items())
    _report(facts, as_json, f"{source}: {h.width}x{h.height} {kind}, quality {h.quality}, {len(data)} bytes, "
                            f"{facts['bpp']:.3f} bpp, model {facts['model']}\n  {parts}")  # fmt: skip


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE")
@_options("model", "backend", "threads", "pixels", "json")
def verify(source: Path, model: str, backend: str, threads: int, max_pixels: int, as_json: bool) -> None:
    """Decodes FILE, checks every checksum, and prints the hash of its latents: equal on all backends.

    Exit code 1 if the file is damaged.
    """
    from condic.runtime.bitstream import Limits
    from condic.runtime.codec import Timings

    data, timings = _read(source), Timings()
    codec = _open(model, backend, threads)
    try:
        start = time.perf_counter()
        decoded = codec.decode(data, timings, Limits(pixels=max_pixels))
    except IntegrityError as error:
        click.echo(f"condic-run: {source}: {error}", err=True)
        sys.exit(_FAILED)
    seconds = time.perf_counter() - start
    height, width = decoded.image.shape[:2]
    digest = decoded.latents_sha256()
    facts = _facts(len(data), width, height, data[6], codec, timings, seconds) | {"latents_sha256": digest}
    _report(facts, as_json, f"{source}: intact\nlatents_sha256 {digest}")


@cli.command()
@_options("model", "json")
def doctor(model: str, as_json: bool) -> None:
    """Lists the backends: which work here, with the known-answer tests of the model, and why others do not."""
    from condic.runtime.backends import backend_names

    rows = []
    for name in backend_names():
        try:
            codec = _open(model, name, 0)
            exact = [g.role for g in codec.bundle.manifest.graphs if g.precision == "exact"]
            for graph in codec.bundle.manifest.graphs:
                codec.graphs.load(graph.role)
            rows.append({"backend": name, "works": True, "detail": f"{codec.backend}; {len(exact)} known-answer tests passed"})
        except BackendError as error:
            rows.append({"backend": name, "works": False, "detail": str(error)})
    _report({"backends": rows}, as_json, "\n".join(f"{r['backend']:10} {'works' if r['works'] else 'no   '}  {r['detail']}" for r in rows))


def main() -> None:
    """Entry point of `condic-run`."""
    try:
        cli.main(standalone_mode=False)
    except CondicError as error:
        click.echo(f"condic-run: {error}", err=True)
        sys.exit(_BAD_INPUT)
    except click.ClickException as error:
        error.show()
        sys.exit(_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        click.echo("condic-run: interrupted", err=True)
        sys.exit(130)


def _decode_to(
    source: Path, target: Path, kind: str, model: str, backend: str, threads: int, max_pixels: int, as_json: bool
) -> None:
    from condic.runtime.bitstream import Limits
    from condic.runtime.codec import Timings

    _check_folder(target)
    if target.suffix.lower() not in _IMAGE_SUFFIXES:
        raise InputError(f"{target}: no image format has this suffix; use one of {' '.join(_IMAGE_SUFFIXES)}")
    data, timings = _read(source), Timings()
    try:
        with timings.stage("load"):
            codec = _open(model, backend, threads)
        start = time.perf_counter()
        action: Callable[..., Decoded] = getattr(codec, kind)
        image = action(data, timings, Limits(pixels=max_pixels)).image
    except CondicError as error:
        raise type(error)(f"{source}: {error}") from error
    seconds = time.perf_counter() - start
    _write_image(target, image)
    height, width = image.shape[:2]
    facts = _facts(len(data), width, height, data[6], codec, timings, seconds)
    _report(facts, as_json, f"{target}: {width}x{height}, {seconds:.2f} s, {codec.backend}")


def _facts(size: int, width: int, height: int, quality: int, codec: Codec, timings: Timings, seconds: float) -> dict[str, Any]:
    stages = {name: round(value, 5) for name, value in timings.seconds.items()} | {"total": round(seconds, 5)}
    return {
        "bytes": size, "bpp": size * 8 / (width * height), "width": width, "height": height, "quality": quality,
        "backend": codec.backend_name, "seconds": stages,
    }  # fmt: skip


def _open(model: str, backend: str, threads: int) -> Codec:
    from condic.runtime.backends import BackendOptions
    from condic.runtime.bundle import read_bundle
    from condic.runtime.codec import Codec
    from condic.runtime.shipped import find_bundle

    return Codec(read_bundle(find_bundle(model)), backend, BackendOptions(threads=threads))


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: {_reason(error)}") from error


def _read_image(source: Path, max_pixels: int) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before pixels are decoded
    try:
        image = Image.open(source)
        if image.width * image.height > max_pixels:
            raise InputError(f"{source}: {image.width}x{image.height} is over --max-pixels {max_pixels}")
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{source}: not an image that Pillow reads") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{source}: {_reason(error)}") from error


def _check_folder(target: Path) -> None:
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder; make it first")
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give a file name")


def _write(target: Path, data: bytes) -> None:
    from condic.files import replace_whole

    try:
        with replace_whole(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"{target}: {_reason(error)}") from error


def _write_image(target: Path, image: Any) -> None:
    from PIL import Image

    from condic.files import replace_whole

    try:
        with replace_whole(target) as temporary:
            Image.fromarray(image).save(temporary)
    except (OSError, ValueError) as error:
        raise InputError(f"{target}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; nothing was written"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _report(facts: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(facts) if as_json else text)
