"""condic-bench pairs."""

from __future__ import annotations

from pathlib import Path

import click

from condic.benchmarks.condic_codec import CondicCodec
from condic.benchmarks.options import Setup, images_argument, names_option, with_setup
from condic.errors import InputError


@click.command()
@images_argument
@names_option("--against", "jpeg", "Peers: jpeg,webp,avif,jxl.")
@click.option("--quality", type=click.IntRange(0, 63), default=20, help="condic's level, which sets the bytes.")
@with_setup
def pairs(setup: Setup, paths: tuple[Path, ...], against: tuple[str, ...], quality: int) -> None:
    """Codes photographs with condic and, in as many bytes, with peers: pictures for a report."""
    from condic.benchmarks.display import progress, show_table
    from condic.benchmarks.images import find_images
    from condic.benchmarks.pairs import Pairs, check_sides, make_pair
    from condic.benchmarks.peers import open_trained

    if not setup.json_out:
        raise InputError("pictures are for a report: give --json FILE, then condic-bench report FILE --html PAGE")
    images, own = find_images(paths), CondicCodec(setup.open(), (quality,))
    check_sides(images)
    peers = [open_trained(name) for name in against]
    with progress("coding", len(images) * (1 + len(peers))) as begin:
        found = tuple(make_pair(path, own, quality, peers, begin) for path in images)
    rows = [
        (pair.file, p.codec, "" if p.level is None else str(p.level), f"{p.bytes:,}", f"{p.psnr:.2f}" if p.psnr else "")
        for pair in found
        for p in pair.pictures
    ]
    show_table("in as many bytes", ("image", "codec", "level", "bytes", "PSNR dB"), rows)
    setup.save("pairs", Pairs({codec.name: codec.settings for codec in (own, *peers)}, found))
