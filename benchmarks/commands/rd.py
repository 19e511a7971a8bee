"""condic-bench rd."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from condic.benchmarks.options import Setup, html_option, images_argument, levels_option, names_option, with_setup

if TYPE_CHECKING:
    from condic.benchmarks.peers import ImageCodec
    from condic.benchmarks.rate_distortion import RateDistortion


@click.command()
@images_argument
@levels_option("0,9,18,27,36,45,54,63")
@names_option("--against", "", "Peers to run as well: jpeg,webp,avif,jxl.")
@html_option()
@with_setup
def rd(
    setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...], against: tuple[str, ...], html_out: Path | None
) -> None:
    """Measures rate, PSNR and MS-SSIM of real files, and BD-rates.

    On Kodak's images (kodim01 to kodim24) published curves are compared too.
    """
    from condic.benchmarks.anchors import is_kodak, kodak_anchors
    from condic.benchmarks.condic_codec import CondicCodec
    from condic.benchmarks.display import progress
    from condic.benchmarks.images import find_images
    from condic.benchmarks.peers import open_trained
    from condic.benchmarks.rate_distortion import RateDistortion, Result, check_sizes, compare, means, measure

    images = find_images(paths)
    codecs: list[ImageCodec] = [CondicCodec(setup.open(), levels), *map(open_trained, against)]
    results: list[Result] = []
    check_sizes(images)
    with progress("coding", len(images) * sum(len(c.levels) for c in codecs)) as begin:
        for codec in codecs:
            results += measure(codec, images, begin)
    measured = means(results)
    anchors = kodak_anchors() if is_kodak(images) else []
    run = RateDistortion(
        settings={c.name: c.settings for c in codecs},
        images=tuple(results),
        means=measured,
        bd_rate=tuple(compare(codecs[0].name, measured, anchors)),
    )
    _show(run, f"mean of {len(images)} (condic: {codecs[0].settings})")
    setup.save("rd", run)
    if html_out:
        from condic.benchmarks.report import write_report
        from condic.benchmarks.results import Results, origin

        write_report([Results(origin("rd"), run)], html_out)


def _show(run: RateDistortion, title: str) -> None:
    """Means per level, and BD-rates."""
    from condic.benchmarks.bd_rate import in_cells
    from condic.benchmarks.display import show_table
    from condic.benchmarks.rate_distortion import RUN_HERE

    means = [
        [codec, str(p.level), f"{p.bpp:.4f}", f"{p.psnr:.2f}", f"{p.ms_ssim:.4f}"]
        for codec, points in run.means.items()
        for p in points
    ]
    show_table(title, ("codec", "level", "bpp", "PSNR dB", "MS-SSIM"), means)
    for codec, settings in run.settings.items():
        if codec != run.codec:
            click.echo(f"{codec}: {settings}")
    if run.bd_rate:
        rates = [
            [f"{c.reference}{'' if c.source == RUN_HERE else ' (published)'}", *in_cells(c.psnr), *in_cells(c.ms_ssim)]
            for c in run.bd_rate
        ]
        columns = ("against", "PSNR", "over dB", "MS-SSIM", "over dB")
        show_table("BD-rate over the common range of quality (PCHIP)", columns, rates)
    for line in run.gaps():
        click.echo(line)
