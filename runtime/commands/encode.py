"""condic-run encode."""

from __future__ import annotations

import time
from pathlib import Path

import click

from condic.command_line import Number, TieredCommand
from condic.files import check_target, named, write_file
from condic.runtime.commands.setup import Setup, coding_facts, with_setup
from condic.runtime.commands.tasks import Result, Task, in_out_arguments, perform, plan

SUFFIX = ".cdic"


@click.command(cls=TieredCommand)
@in_out_arguments
@click.option("-q", "--quality", type=click.IntRange(0, 63), help="Level: 0 smallest, 63 best; default 32.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Best level whose file is no larger; instead of -q.")
@click.option("--bpp", type=Number(min=0, min_open=True), help="The same limit in bits per pixel.")
@click.option("--psnr", type=Number(min=0), help="Smallest level whose picture has so many dB; instead of -q.")
@click.option("--strip", is_flag=True, help="Leave out ICC profile, EXIF and XMP.")
@with_setup
def encode(
    setup: Setup, paths: tuple[Path, ...], out_dir: Path | None, force: bool, skip: bool, quality: int | None,
    max_bytes: int | None, bpp: float | None, psnr: float | None, strip: bool,
) -> None:  # fmt: skip
    """Compresses an image.

    IN is whatever Pillow reads, OUT a name that ends in .cdic. With --out-dir any number of IN are compressed into
    files of their own names there. A limit on size or distortion is met by a search over the levels: eight coding
    passes at most, three or four as a rule, with the prior's analysis done once for all of them.
    """
    if sum(value is not None for value in (quality, max_bytes, bpp, psnr)) > 1:
        raise click.UsageError("-q, --max-bytes, --bpp and --psnr exclude each other: give one")

    def work(task: Task) -> Result:
        from PIL import Image, PngImagePlugin

        from condic.runtime.bitstream import read_header
        from condic.runtime.image_files import read_picture
        from condic.runtime.rate_control import encode_for
        from condic.runtime.timings import Timings

        check_target(task.target, (SUFFIX,), replace=force)
        Image.MAX_IMAGE_PIXELS = None  # of this process; --max-pixels takes its place
        PngImagePlugin.MAX_TEXT_CHUNK = setup.limits.metadata  # an ICC profile counts as text there
        picture = read_picture(task.source, setup.limits)
        if strip:
            picture = picture.without_metadata()
        timings = Timings()
        with timings.stage("load"):
            codec = setup.open(setup.model_to_encode)
        start = time.perf_counter()
        with named(task.source):
            chosen = encode_for(
                codec, picture, quality=quality, max_bytes=max_bytes, bpp=bpp, psnr=psnr, timings=timings,
                limits=setup.limits,
            )  # fmt: skip
        seconds, size = time.perf_counter() - start, len(chosen.data)
        write_file(task.target, chosen.data, replace=force)
        facts = coding_facts(size, read_header(chosen.data, setup.limits), codec, timings, seconds)
        facts |= {"passes": chosen.passes}
        text = f"{size} bytes, {facts['bpp']:.3f} bpp, quality {chosen.quality}, {seconds:.2f} s, {codec.backend}"
        if chosen.passes > 1:
            text += f", {chosen.passes} passes"
        return Result(facts, f"{task.target}: {text}")

    perform(plan(paths, out_dir, SUFFIX, force=force, skip=skip), work, setup)
