"""One photograph through the shipped codec and back: `python -m condic.benchmarks.demo IMAGE`."""

from __future__ import annotations

import time
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

from condic.benchmarks.images import read_rgb
from condic.benchmarks.metrics import ms_ssim, psnr
from condic.benchmarks.timing import measure
from condic.command_line import run_program
from condic.files import named_errors, replace_whole, write_file
from condic.runtime.arrays import Pixels
from condic.runtime.bitstream import HEADER_BYTES, SECTION_BYTES, read_stream
from condic.runtime.codec import load_codec
from condic.runtime.image_files import write_image
from condic.runtime.shipped import DEFAULT_MODEL
from condic.version import __version__

_CAPTION_HEIGHT, _GAP = 22, 6


def preview_bytes(data: bytes, latents: int) -> int:
    """Bytes from the start of a file that its preview needs: header and the first sections."""
    sections = read_stream(data).sections[:latents]
    return HEADER_BYTES + sum(SECTION_BYTES + len(s.payload) for s in sections)


def side_by_side(panels: list[tuple[str, Pixels]]) -> Image.Image:
    """Images of one size next to each other, a line of text above each."""
    height, width = panels[0][1].shape[:2]
    size = len(panels) * (width + _GAP) - _GAP, height + _CAPTION_HEIGHT
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for k, (caption, pixels) in enumerate(panels):
        left = k * (width + _GAP)
        draw.text((left + 2, 3), caption, fill="black", font=ImageFont.load_default(14))
        sheet.paste(Image.fromarray(pixels), (left, _CAPTION_HEIGHT))
    return sheet


@click.command(context_settings={"max_content_width": 100, "show_default": True})
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-q", "--quality", type=click.IntRange(0, 63), default=20, help="Level: 0 smallest, 63 best.")
@click.option("--model", default=DEFAULT_MODEL, help="Shipped model or path of a bundle.")
@click.option("--backend", default="ort", help="ort, openvino, torch or auto.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads; 0: as many as cores.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), help="Folder for what is written.")
@click.option("--picture", type=click.Path(path_type=Path), help="File of the side-by-side; default: in --out.")
def demo(image: Path, quality: int, model: str, backend: str, threads: int, out: Path, picture: Path | None) -> None:
    """Encodes IMAGE, decodes it, and writes the file, the pictures and the figures of both."""
    pixels = read_rgb(image)
    start = time.perf_counter()
    codec = load_codec(model, backend, threads)
    codec.load()
    loading = time.perf_counter() - start

    data = codec.encode(pixels, quality)
    decoded, preview = codec.decode(data).image, codec.preview(data).image
    encode = measure(lambda _, timings: codec.encode(pixels, quality, timings), runs=3)
    decode = measure(lambda _, timings: codec.decode(data, timings), runs=3)
    height, width = pixels.shape[:2]
    needed = preview_bytes(data, sum(step.op == "code" for step in codec.bundle.manifest.preview))
    bpp = len(data) * 8 / (width * height)

    original = image.stat().st_size
    sheet = side_by_side([
        (f"original: {original:,} bytes ({image.suffix[1:].upper()})", pixels),
        (f"condic, quality {quality}: {len(data):,} bytes, {bpp:.2f} bpp", decoded),
        (f"preview, from the first {needed:,} bytes", preview),
    ])  # fmt: skip
    picture = picture or out / f"{image.stem}-side-by-side.png"
    files = [out / f"{image.stem}.cdic", out / f"{image.stem}.png", out / f"{image.stem}-preview.png", picture]
    with named_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_file(files[0], data)
    write_image(files[1], decoded)
    write_image(files[2], preview)
    with named_errors(picture), replace_whole(picture) as temporary:
        sheet.save(temporary, quality=90, subsampling="4:4:4")

    manifest = codec.bundle.manifest
    click.echo(f"condic {__version__}, {manifest.name} ({codec.bundle.id.hex()}), {codec.backend}")
    for name, value in (
        ("image", f"{image}, {width}x{height}, {original:,} bytes"),
        ("file", f"quality {quality}: {len(data):,} bytes, {bpp:.3f} bpp"),
        ("PSNR", f"{psnr(decoded, pixels):.2f} dB"),
        ("MS-SSIM", f"{ms_ssim(decoded, pixels):.4f}"),
        ("encode", f"{encode.seconds.median:.3f} s, median of 3"),
        ("decode", f"{decode.seconds.median:.3f} s, median of 3"),
        ("loading", f"{loading:.2f} s, once: model and known-answer tests"),
        ("written", ", ".join(map(str, files))),
    ):
        click.echo(f"  {name:8} {value}")


if __name__ == "__main__":
    run_program("demo", demo)
