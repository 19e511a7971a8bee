"""What the self-generated prior of dcic-sgp does, measured on Kodak's images.

python docs/make_prior.py page KODAK writes docs/prior.md and its picture, from docs/prior.md.in.
python docs/make_prior.py runs KODAK WEIGHTS WEIGHTS prints what two training runs came to, with and without `--blind`
or `--prior-share`, say, for that text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import click
import numpy as np
import torch
from PIL import Image

from condic.benchmarks.bd_rate import Curve, bd_rate
from condic.benchmarks.demo import side_by_side
from condic.benchmarks.images import read_rgb
from condic.benchmarks.metrics import gradient_similarity, psnr
from condic.benchmarks.pairs import highest_within
from condic.benchmarks.peers import open_peer
from condic.models.dcic_sgp import DcicSgp
from condic.models.weights import load_weights, read_metadata
from condic.runtime.bitstream import read_stream
from condic.runtime.codec import Codec, load_codec
from condic.runtime.rate_control import encode_for
from condic.runtime.shipped import DEFAULT_MODEL, shipped_folder
from condic.training.evaluation import LEVELS, Point, evaluate

DOCS = Path(__file__).parent
PICTURE = DOCS / "pictures" / "low-rate.jpg"
SHARE_LEVELS = range(0, 64, 9)
LOW_RATE = 0.15
"""Bits per pixel that files of the panel stay below."""
PANEL_IMAGES, CROP = 3, 192
BLIND = {None: "as trained", "analysis": "zeros in the analysis", "synthesis": "zeros in the synthesis",
         "both": "zeros in both"}  # fmt: skip


def shares(codec: Codec, images: Sequence[Path]) -> Iterator[str]:
    """Rows: level, mean bits per pixel of the file, percent of each latent's section in it."""
    names = [latent.name for latent in codec.bundle.manifest.latents]
    yield f"| level | bpp | {' | '.join(names)} |"
    yield "|---:|---:|" + "---:|" * len(names)
    for level in SHARE_LEVELS:
        bpp, parts = [], []
        for path in images:
            pixels = read_rgb(path)
            data = codec.encode(pixels, level)
            bpp.append(len(data) * 8 / (pixels.shape[0] * pixels.shape[1]))
            parts.append([len(section.payload) / len(data) for section in read_stream(data).sections])
        percent = " | ".join(f"{share:.0%}" for share in np.mean(parts, axis=0))
        yield f"| {level} | {mean(bpp):.3f} | {percent} |"


def model_from(weights: Path, blind: str | None) -> DcicSgp:
    """Preset s in float form with the given weights."""
    model = DcicSgp("s", blind).eval()
    load_weights(model, weights)
    return model


def points(model: DcicSgp, images: Sequence[Path], levels: Sequence[int] = LEVELS) -> list[Point]:
    """The float model's estimated rates and PSNR."""
    return evaluate(model, [read_rgb(path) for path in images], torch.device("cpu"), levels)


def table(columns: dict[str, list[Point]], *, with_share: bool = False) -> Iterator[str]:
    """One row per level; bits per pixel, the prior's share of them if wanted, and PSNR of each column."""

    def cell(p: Point) -> str:
        share = f"prior {p.bpp['prior'] / p.rate:.0%}, " if with_share else ""
        return f"{p.rate:.3f} bpp, {share}{p.psnr:.2f} dB"

    yield "| level | " + " | ".join(columns) + " |"
    yield "|---:|" + "---:|" * len(columns)
    for row in zip(*columns.values(), strict=True):
        yield f"| {row[0].level} | " + " | ".join(map(cell, row)) + " |"


def curve(found: Sequence[Point]) -> Curve:
    """The rate-distortion curve of an evaluation."""
    return Curve(tuple(p.rate for p in found), tuple(p.psnr for p in found))


@dataclass(frozen=True)
class Coded:
    """An image through a codec."""

    codec: str
    bytes: int
    pixels: np.ndarray


def panel(codec: Codec, images: Sequence[Path]) -> Iterator[str]:
    """Rows of the comparison at low rate; writes the picture."""
    yield "| image | codec | bytes | PSNR dB | gradient similarity |"
    yield "|---|---|---:|---:|---:|"
    files = {path: codec.encode(read_rgb(path), 0) for path in images}
    smallest = sorted(images, key=lambda path: len(files[path]))[:PANEL_IMAGES]
    peers = [open_peer(name) for name in ("jxl", "avif")]
    strips = []
    for path in smallest:
        pixels = read_rgb(path)
        limit = int(LOW_RATE * pixels.shape[0] * pixels.shape[1] / 8)
        own = encode_for(codec, pixels, max_bytes=max(limit, len(files[path])))
        results = [Coded(f"condic, level {own.quality}", len(own.data), codec.decode(own.data).image)]
        for peer in peers:
            _, data = highest_within(peer, pixels, len(own.data))
            results.append(Coded(peer.name, len(data), peer.decode(data)))
        for r in results:
            quality = psnr(r.pixels, pixels), gradient_similarity(r.pixels, pixels)
            yield f"| {path.stem} | {r.codec} | {r.bytes:,} | {quality[0]:.2f} | {quality[1]:.4f} |"
        window = sharpest_crop(pixels)
        panels = [(path.stem, pixels), *((f"{r.codec}, {r.bytes:,} bytes", r.pixels) for r in results)]
        strips.append(side_by_side([
            (caption, np.repeat(np.repeat(image[window], 2, axis=0), 2, axis=1)) for caption, image in panels
        ]))  # fmt: skip
    sheet = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    for k, strip in enumerate(strips):
        sheet.paste(strip, (0, sum(s.height for s in strips[:k])))
    sheet.save(PICTURE, quality=88)


def sharpest_crop(pixels: np.ndarray) -> tuple[slice, slice]:
    """The window with the strongest gradients."""
    grey = pixels.astype(float).mean(axis=2)
    energy = np.abs(np.gradient(grey)[0]) + np.abs(np.gradient(grey)[1])
    height, width = grey.shape
    corners = [(t, x) for t in range(0, height - CROP + 1, 32) for x in range(0, width - CROP + 1, 32)]
    top, left = max(corners, key=lambda c: float(energy[c[0] : c[0] + CROP, c[1] : c[1] + CROP].sum()))
    return slice(top, top + CROP), slice(left, left + CROP)


kodak_argument = click.argument("kodak", type=click.Path(exists=True, file_okay=False, path_type=Path))
weights_type = click.Path(exists=True, path_type=Path)


@click.group()
def main() -> None:
    """Measures what the prior does."""


@main.command()
@kodak_argument
def page(kodak: Path) -> None:
    """Measures the weights that ship and writes docs/prior.md and its picture."""
    images = sorted(kodak.glob("*.png"))
    codec = load_codec(DEFAULT_MODEL)
    shipped = shipped_folder() / f"{DEFAULT_MODEL}.safetensors"
    zeroed = {title: points(model_from(shipped, name), images, (0, 32, 63)) for name, title in BLIND.items()}
    text = (DOCS / "prior.md.in").read_text()
    for name, rows in {"share": shares(codec, images), "zeroed": table(zeroed), "panel": panel(codec, images)}.items():
        text = text.replace(f"@{name}@", "\n".join(rows))
    (DOCS / "prior.md").write_text(text)


@main.command()
@kodak_argument
@click.argument("first", type=weights_type)
@click.argument("second", type=weights_type)
def runs(kodak: Path, first: Path, second: Path) -> None:
    """Prints a table of two runs of condic-train, and the BD-rate of the second against the first."""
    images = sorted(kodak.glob("*.png"))
    columns = {}
    for weights in (first, second):
        about = read_metadata(weights)
        title = f"{weights}, {about['step']} steps of {about['batch']} crops of {about['crop']}"
        columns[title] = points(model_from(weights, about.get("blind")), images)
    click.echo("\n".join(table(columns, with_share=True)))
    found = bd_rate(*(curve(column) for column in columns.values()))
    click.echo(f"BD-rate {found.percent:+.1f} %" if found else "not comparable")


if __name__ == "__main__":
    main()
