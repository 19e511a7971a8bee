"""Photographs with a divider in a report."""

from __future__ import annotations

from condic.benchmarks.pairs import Pair, Pairs, Picture
from condic.benchmarks.report.page import Section, escape, note


def sections(run: Pairs) -> list[Section]:
    """A photograph each: two lists choose what is left and right of the divider. In print, all of them."""
    about = note(
        "Drag the divider, or move it with the arrow keys. Peers have the best level that needs no more bytes than "
        "condic, or their smallest file where all need more; pictures are shown without further loss.",
        *(f"{name}: {text}" for name, text in run.settings.items()),
    )
    return [Section("pictures", "Pictures in as many bytes", about + "".join(map(_pair, run.pairs)))]


def _pair(pair: Pair) -> str:
    captions = [_caption(picture) for picture in pair.pictures]
    pixels = pair.width * pair.height
    whole = "".join(
        f'<figure><img alt="{escape(f"{pair.file}, {caption}")}" src="data:image/webp;base64,{escape(picture.webp)}">'
        f"<figcaption>{escape(caption)}, {picture.bytes * 8 / pixels:.2f} bpp</figcaption></figure>"
        for picture, caption in zip(pair.pictures, captions, strict=True)
    )
    last = len(captions) - 1
    return (
        f'<div class=pair style="--width:{pair.width}px"><div class=choice>{_list("left", captions, min(1, last - 1))}'
        f"{_list('right', captions, min(2, last))}</div><div class=stage><img class=under alt=''>"
        f"<img class=over alt=''><span class=line></span><input type=range min=0 max=100 step=0.1 value=50 "
        f'aria-label="Divider of {escape(pair.file)}"></div><p class=note>{escape(pair.file)}</p>'
        f"<div class=all>{whole}</div></div>"
    )


def _list(side: str, captions: list[str], chosen: int) -> str:
    options = "".join(
        f"<option value={k}{' selected' if k == chosen else ''}>{escape(caption)}</option>"
        for k, caption in enumerate(captions)
    )
    return f'<select data-side={side} aria-label="Picture on the {side}">{options}</select>'


def _caption(picture: Picture) -> str:
    quality = f", {picture.psnr:.2f} dB" if picture.psnr else ""
    level = "" if picture.level is None else f" {picture.level}"
    return f"{picture.codec}{level}: {picture.bytes:,} bytes{quality}"
