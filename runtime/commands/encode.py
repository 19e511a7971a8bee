"""condic-run encode."""

from __future__ import annotations

import time
from pathlib import Path

import click
from click.core import ParameterSource

from condic.command_line import TieredCommand
from condic.files import check_target, write_file
from condic.runtime.commands.setup import Setup, coding_facts, with_setup
from condic.runtime.commands.tasks import Result, Task, in_out_arguments, perform, plan

SUFFIX = ".cdic"


@click.command(cls=TieredCommand)
@in_out_arguments
@click.option("-q", "--quality", type=click.IntRange(0, 63), default=32, help="Level: 0 smallest, 63 best.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Best level whose file is no larger; instead of -q.")
@click.option("--bpp", type=click.FloatRange(min=0, min_open=True), help="The same limit in bits per pixel.")
@click.option("--psnr", type=float, help="Smallest level whose picture has so many dB; instead of -q.")
@click.option("--strip", is_flag=True, help="Leave out ICC profile, EXIF and XMP.")
@with_setup
def encode(
    setup: Setup, paths: tuple[Path, ...], out_dir: Path | None, force: bool, quality: int, max_bytes: int | None,
    bpp: float | None, psnr: float | None, strip: bool,
) -> None:  # fmt: skip
    """Compresses an image.

    IN is whatever Pillow reads, OUT a name that ends in .cdic. With --out-dir any number of IN are compressed into
    files of their own names there. A limit on size or distortion is met by bisection over the levels, in six or seven
    coding passes.
    """
    given = click.get_current_context().get_parameter_source("quality") == ParameterSource.COMMANDLINE
    if sum((given, max_bytes is not None, bpp is not None, psnr is not None)) > 1:
        raise click.UsageError("-q, --max-bytes, --bpp and --psnr exclude each other: give one")

    def work(task: Task) -> Result:
        from PIL import Image

        from condic.runtime.bitstream import read_header
        from condic.runtime.image_files import read_picture
        from condic.runtime.rate_control import Chosen, encode_at_psnr, encode_within
        from condic.runtime.timings import Timings

        check_target(task.target, (SUFFIX,), replace=force)
        Image.MAX_IMAGE_PIXELS = None  # of this process; --max-pixels takes its place
        picture = read_picture(task.source, setup.limits)
        if strip:
            picture = picture.without_metadata()
        timings = Timings()
        with timings.stage("load"):
            codec = setup.open()
        start = time.perf_counter()
        most = max(1, int(bpp * picture.rgb.shape[0] * picture.rgb.shape[1] / 8)) if bpp is not None else max_bytes
        if most is not None:
            chosen = encode_within(codec, picture, most, timings, setup.limits)
        elif psnr is not None:
            chosen = encode_at_psnr(codec, picture, psnr, timings, setup.limits)
        else:
            chosen = Chosen(codec.encode(picture, quality, timings, setup.limits), quality, passes=1)
        seconds, size = time.perf_counter() - start, len(chosen.data)
        write_file(task.target, chosen.data, replace=force)
        facts = coding_facts(size, read_header(chosen.data, setup.limits), codec, timings, seconds)
        facts |= {"passes": chosen.passes}
        text = f"{size} bytes, {facts['bpp']:.3f} bpp, quality {chosen.quality}, {seconds:.2f} s, {codec.backend}"
        return Result(facts, f"{task.target}: {text}")

    perform(plan(paths, out_dir, SUFFIX), work, setup, several=out_dir is not None)
