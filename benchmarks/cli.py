"""condic-bench: speed, size, rd, coder."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condic.command_line import run_program, with_setup
from condic.files import check_target, write_file
from condic.runtime.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from condic.runtime.codec import Codec


@dataclass(frozen=True)
class Setup:
    """The options that commands share."""

    bundle: str
    backend: str
    threads: int
    json_out: Path | None

    def open(self) -> Codec:
        """The model on the backend."""
        from condic.runtime.codec import load_codec

        return load_codec(self.bundle, self.backend, self.threads)

    def save(self, rows: Any) -> None:
        """Writes results with what they were measured on, where --json asks for it."""
        if self.json_out:
            facts = {"command": _command(), "machine": _machine(), "results": rows}
            write_file(self.json_out, (json.dumps(facts, indent=1) + "\n").encode())


_with_setup = with_setup(
    Setup,
    click.option("--bundle", default=DEFAULT_MODEL, help="Shipped model, or path of a bundle."),
    click.option("--backend", default="ort", help="ort, openvino, torch or auto."),
    click.option("--threads", type=click.IntRange(min=0), default=0, help="0: as many as the backend likes."),
    click.option("--json", "json_out", type=click.Path(path_type=Path), help="File for all results."),
)
_images = click.argument("paths", type=click.Path(path_type=Path), metavar="IMAGE_OR_DIR...", nargs=-1, required=True)


def _levels(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--levels", callback=_parse_levels, default=default, help="Quality levels, 0..63.")


def _parse_levels(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Levels such as 0,16,32: sorted, each once."""
    try:
        levels = tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of levels; write it like 0,16,32") from error
    if not 0 <= levels[0] <= levels[-1] <= 63:
        raise click.BadParameter(f"{value!r}: levels are 0..63")
    return levels


@click.group(context_settings={"max_content_width": 100, "show_default": True, "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="condic", message="condic %(version)s")
def cli() -> None:
    """Measures speed, file sizes and rate-distortion of condic's codecs."""


@cli.command()
@_images
@_levels("8,32,56")
@click.option("--repeats", type=click.IntRange(min=1), default=5, help="Runs, after one more to warm up.")
@_with_setup
def speed(setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...], repeats: int) -> None:
    """Times encoding and decoding in one process, entropy coding included; medians per image and stage."""
    from condic.benchmarks.display import progress, show_speed
    from condic.benchmarks.images import find_images, read_rgb
    from condic.benchmarks.speed import measure_speed

    images, codec = find_images(paths), setup.open()
    rows = []
    with progress("timing", len(images) * len(levels)) as done:
        for path in images:
            pixels = read_rgb(path)
            for level in levels:
                rows.append(measure_speed(codec, path.name, pixels, level, repeats)[0])
                done()
    show_speed(rows, f"{codec.backend}, {_machine()}, median of {repeats}")
    setup.save([asdict(row) for row in rows])


@cli.command()
@_images
@_levels("0,16,32,48,63")
@_with_setup
def size(setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...]) -> None:
    """Compares real file sizes with the information of their symbols under the quantised tables."""
    from condic.benchmarks.display import progress, show_sizes
    from condic.benchmarks.images import find_images, read_rgb
    from condic.benchmarks.size import mean_size, measure_size

    images, codec = find_images(paths), setup.open()
    rows = []
    with progress("encoding", len(images) * len(levels)) as done:
        for level in levels:
            sizes = []
            for path in images:
                sizes.append(measure_size(codec, read_rgb(path), level))
                done()
            rows.append(mean_size(sizes))
    manifest = codec.bundle.manifest
    show_sizes(rows, f"mean of {len(images)}, {manifest.codec}-{manifest.preset} ({codec.bundle.id.hex()})")
    setup.save([asdict(row) for row in rows])


@cli.command()
@_images
@_levels("0,9,18,27,36,45,54,63")
@click.option("--against", default="", help="Peers to run as well: jpeg,webp,avif,jxl.")
@click.option("--html", "html_out", type=click.Path(path_type=Path), help="File for a report with plots.")
@_with_setup
def rd(setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...], against: str, html_out: Path | None) -> None:
    """Measures rate, PSNR and MS-SSIM of real files, and BD-rates.

    On Kodak's images (kodim01 to kodim24) published curves are compared too.
    """
    from condic.benchmarks.anchors import is_kodak, kodak_anchors
    from condic.benchmarks.display import progress, show_rate_distortion
    from condic.benchmarks.images import find_images
    from condic.benchmarks.peers import open_peer
    from condic.benchmarks.rate_distortion import Condic, ImageCodec, Result, compare, means, measure
    from condic.benchmarks.report import Run, page

    for target in filter(None, (html_out, setup.json_out)):
        check_target(target)
    images = find_images(paths)
    codecs: list[ImageCodec] = [Condic(setup.open(), levels), *map(open_peer, filter(None, against.split(",")))]
    results: list[Result] = []
    with progress("coding", len(images) * sum(len(c.levels) for c in codecs)) as done:
        for codec in codecs:
            results += measure(codec, images, done)
    measured = means(results)
    anchors = kodak_anchors() if is_kodak(images) else []
    comparisons = compare(codecs[0].name, measured, anchors)
    show_rate_distortion(measured, comparisons, f"mean of {len(images)} (condic: {codecs[0].settings})", bool(anchors))
    setup.save({
        "settings": {c.name: c.settings for c in codecs},
        "images": [asdict(r) for r in results],
        "means": {name: [asdict(p) for p in points] for name, points in measured.items()},
        "bd_rate": [asdict(c) for c in comparisons],
    })  # fmt: skip
    if html_out:
        settings = {c.name: c.settings for c in codecs}
        run = Run(
            f"{codecs[0].name}: rate and distortion", _command(), _machine(), settings, results, measured, comparisons,
            anchors,
        )  # fmt: skip
        write_file(html_out, page(run).encode())


@cli.command()
@_images
@_levels("32,63")
@click.option("--repeats", type=click.IntRange(min=1), default=100, help="Runs, of which the fastest counts.")
@_with_setup
def coder(setup: Setup, paths: tuple[Path, ...], levels: tuple[int, ...], repeats: int) -> None:
    """Times the entropy coder alone, on one thread, on the largest latent of each image.

    With --json, the histograms of scales and magnitudes are written too.
    """
    from condic.benchmarks.coder import measure_coder
    from condic.benchmarks.display import progress, show_coder
    from condic.benchmarks.images import find_images, read_rgb

    images, codec = find_images(paths), setup.open()
    rows = []
    with progress("timing", len(images) * len(levels)) as done:
        for path in images:
            pixels = read_rgb(path)
            for level in levels:
                rows.append(measure_coder(codec, path.name, pixels, level, repeats))
                done()
    show_coder(rows, f"{_machine()}, one thread, fastest of {repeats}")
    setup.save([asdict(row) for row in rows])


def _command() -> str:
    return shlex.join(["condic-bench", *sys.argv[1:]])


def _machine() -> str:
    import os

    from condic.benchmarks.coder import cpu_name

    return f"{cpu_name()}, {os.cpu_count()} processors"


def main() -> None:
    """Entry point of `condic-bench`."""
    run_program("condic-bench", cli, extras="bench,cpu")
