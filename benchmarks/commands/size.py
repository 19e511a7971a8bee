"""condic-bench size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from condic.benchmarks.options import Setup, images_argument, levels_option, with_setup

if TYPE_CHECKING:
    from condic.benchmarks.size import Size


@click.command()
@images_argument
@levels_option("0,16,32,48,63")
@with_setup
def size(setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...]) -> None:
    """Compares real file sizes with the information of their symbols under the quantised tables."""
    from condic.benchmarks.display import progress
    from condic.benchmarks.images import find_images, read_rgb
    from condic.benchmarks.size import mean_size, measure_size

    images, codec = find_images(paths), setup.open()
    rows = []
    with progress("encoding", len(images) * len(levels)) as begin:
        for level in levels:
            sizes = []
            for path in images:
                begin(f"{level} {path.name}")
                sizes.append(measure_size(codec, read_rgb(path), level))
            rows.append(mean_size(sizes))
    manifest = codec.bundle.manifest
    _show(rows, f"mean of {len(images)}, {manifest.name} ({codec.bundle.id.hex()})")
    setup.save("size", rows)


def _show(rows: Sequence[Size], title: str) -> None:
    """Bytes per level against the information, and where they go."""
    from condic.benchmarks.display import show_table

    columns = ("level", "file", "information", "coder", "framing", "excess", *(x.name for x in rows[0].latents))
    cells = []
    for r in rows:
        parts = (f"{x:,.1f}" for x in (r.bytes, r.information, r.coder_overhead, r.framing))
        excess = f"{100 * (r.bytes / r.information - 1):.2f} %"
        cells.append([str(r.level), *parts, excess, *(f"{x.payload:,.1f}" for x in r.latents)])
    show_table(f"bytes per image, {title}", columns, cells)
    click.echo("information: sum of -log2 p under the quantised tables; coder, framing: bytes on top of it")
