"""condic-run decode and preview."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from condic.command_line import TieredCommand
from condic.files import check_target, named, read_source
from condic.runtime.commands.setup import Setup, coding_facts, with_setup
from condic.runtime.commands.tasks import Result, Task, in_out_arguments, perform, plan

if TYPE_CHECKING:
    from condic.runtime.bitstream import Header, Limits
    from condic.runtime.codec import Codec, Decoded
    from condic.runtime.timings import Timings

    Decode = Callable[[Codec, bytes | memoryview, Timings, Limits], Decoded]
    SizeOf = Callable[[Header], tuple[int, int]]

_SCALES = ["1/8", "1/16", "1/32"]
_format = click.option(
    "--format", "suffix", type=click.Choice(["png", "jpg", "webp", "tiff", "bmp", "ppm"]), default="png",
    help="Image format where no suffix says it: with --out-dir, and for -.",
)  # fmt: skip


def _region(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """X,Y,W,H as four integers."""
    if value is None:
        return None
    try:
        left, top, width, height = (int(x) for x in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not X,Y,W,H: left, top, width and height in pixels") from error
    return left, top, width, height


@click.command(cls=TieredCommand)
@in_out_arguments
@click.option("--region", callback=_region, metavar="X,Y,W,H", help="Only these pixels: left, top, width, height.")
@click.option("--scale", type=click.Choice(_SCALES), help="A small image, from the first stream alone.")
@_format
@with_setup
def decode(
    setup: Setup, paths: tuple[Path, ...], out_dir: Path | None, force: bool, skip: bool,
    region: tuple[int, ...] | None, scale: str | None, suffix: str,
) -> None:  # fmt: skip
    """Decompresses a file.

    OUT's suffix says the image format. With --out-dir any number of IN are decompressed into files of their own names
    there. --region gives the pixels that the whole image has there. --scale gives the preview, reduced: sides are
    rounded up.
    """
    if region and scale:
        raise click.UsageError("--region and --scale exclude each other: give one")

    def run(codec: Codec, data: bytes | memoryview, timings: Timings, limits: Limits) -> Decoded:
        if scale:
            return codec.preview(data, timings, limits, reduction=int(scale.removeprefix("1/")))
        return codec.decode(data, timings, limits, region)

    def size(header: Header) -> tuple[int, int]:
        if region:
            from condic.runtime.canvas import Rectangle

            wanted = Rectangle.within(region, header.width, header.height)
            return wanted.width, wanted.height
        reduction = int(scale.removeprefix("1/")) if scale else 1
        return -(-header.width // reduction), -(-header.height // reduction)

    _decode_all(setup, paths, out_dir, suffix, run, size, force=force, skip=skip)


@click.command(cls=TieredCommand)
@in_out_arguments
@_format
@click.option("--sr", is_flag=True, help="Super-resolved to full size, by models that code a smaller image first.")
@with_setup
def preview(
    setup: Setup, paths: tuple[Path, ...], out_dir: Path | None, force: bool, skip: bool, suffix: str, sr: bool
) -> None:
    """Decompresses the first stream alone, a rough image.

    IN and OUT are as those of decode. With cic-sr it is the low-resolution image, a quarter as wide and high.
    """
    _decode_all(
        setup, paths, out_dir, suffix, lambda codec, *arguments: codec.preview(*arguments, large=sr),
        lambda header: (1, 1),  # at least; the model knows more
        force=force, skip=skip,
    )  # fmt: skip


def _is_transparent(data: bytes | memoryview, limits: Limits) -> bool:
    from condic.runtime.bitstream import read_stream
    from condic.runtime.pictures import stored_without_loss

    alpha, _ = stored_without_loss(read_stream(data, limits), limits)
    return alpha is not None and alpha.min() < 255


def _decode_all(
    setup: Setup, paths: Sequence[Path], out_dir: Path | None, suffix: str, run: Decode, size: SizeOf, *,
    force: bool, skip: bool,
) -> None:  # fmt: skip
    """`size` is what the picture's width and height will be, known before it is decoded."""

    def work(task: Task) -> Result:
        from condic.runtime.bitstream import MAGIC, Flags, read_header
        from condic.runtime.image_files import SUFFIXES, check_format, write_image
        from condic.runtime.timings import Timings

        check_target(task.target, SUFFIXES, replace=force)
        data, timings = read_source(task.source, MAGIC), Timings()
        with named(task.source):
            header = read_header(data, setup.limits)
            model = setup.model_for(header)
            alpha = bool(header.flags & Flags.ALPHA) and _is_transparent(data, setup.limits)
            width, height = size(header)
        check_format(task.target, f".{suffix}", width, height, alpha=alpha)
        with timings.stage("load"):
            codec = setup.open(model)
        with named(task.source):
            start = time.perf_counter()
            decoded = run(codec, data, timings, setup.limits)
            seconds = time.perf_counter() - start
        write_image(task.target, decoded.image, decoded.metadata, f".{suffix}", replace=force)
        facts = coding_facts(len(data), header, codec, timings, seconds)
        height, width = decoded.image.shape[:2]
        return Result(facts, f"{task.target}: {width}x{height}, {seconds:.2f} s, {codec.backend}")

    perform(plan(paths, out_dir, f".{suffix}", force=force, skip=skip), work, setup)
