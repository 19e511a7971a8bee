"""condic-bench coder."""

from __future__ import annotations

from pathlib import Path

import click

from condic.benchmarks.options import Setup, images_argument, levels_option, with_setup


@click.command()
@images_argument
@levels_option("32,63")
@click.option("--repeats", type=click.IntRange(min=1), default=100, help="Runs, of which the fastest counts.")
@with_setup
def coder(setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...], repeats: int) -> None:
    """Times the entropy coder alone, on one thread, on the largest latent of each image.

    With --json, the histograms of scales and magnitudes are written too.
    """
    from condic.benchmarks.coder import measure_coder
    from condic.benchmarks.display import progress, show_table
    from condic.benchmarks.images import find_images, read_rgb
    from condic.benchmarks.machine import this_machine

    images, codec = find_images(paths), setup.open()
    rows = []
    with progress("timing", len(images) * len(levels)) as begin:
        for path in images:
            pixels = read_rgb(path)
            for level in levels:
                begin(f"{path.name} {level}")
                rows.append(measure_coder(codec, path.name, pixels, level, repeats))
    show_table(
        f"{this_machine().describe()}, one thread, fastest of {repeats}",
        ("image", "level", "latent", "symbols", "encode M/s", "decode M/s", "bytes", "information"),
        [
            [r.file, str(r.level), r.latent, f"{r.symbols:,}", f"{r.encode / 1e6:.0f}", f"{r.decode / 1e6:.0f}",
             f"{r.bytes:,}", f"{r.information:,.1f}"]
            for r in rows
        ],
    )  # fmt: skip
    setup.save("coder", rows)
