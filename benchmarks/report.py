"""A rate-distortion run as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from condic.benchmarks.anchors import Anchor
from condic.benchmarks.bd_rate import BdRate
from condic.benchmarks.plot import Line, draw
from condic.benchmarks.rate_distortion import Comparison, Mean, Result, curves

DRAWN = ("vtm", "bpg", "av1", "hyper", "mbt2018mean", "cheng_attn", "elic", "evc_S", "dcae")
"""Anchors that plots show; tables name all."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .15em .9em .15em 0; text-align: right }
th { border-bottom: 1px solid #888; font-weight: 600 } td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto } code { font-size: 13px } .note { color: #555 }
"""


@dataclass(frozen=True)
class Run:
    """A whole run: the measured codec (first) and its peers with their settings, results, means and comparisons."""

    title: str
    command: str
    machine: str
    settings: dict[str, str]
    results: Sequence[Result]
    means: dict[str, list[Mean]]
    comparisons: Sequence[Comparison]
    anchors: Sequence[Anchor]


def page(run: Run) -> str:
    """The page's text."""
    images = len({r.file for r in run.results})
    parts = [
        f"<h1>{html.escape(run.title)}</h1>",
        f"<p><code>{html.escape(run.command)}</code></p>",
        f"<p class=note>{images} images, RGB. Rates are those of whole files. PSNR and MS-SSIM are computed per image "
        f"on 8-bit RGB and averaged over the images at each level. {html.escape(run.machine)}</p>",
        *(f"<p class=note>{html.escape(name)}: {html.escape(text)}</p>" for name, text in run.settings.items()),
        "<h2>Curves</h2>",
        draw(_lines(run, 0), "PSNR (dB)"),
        draw(_lines(run, 1), "MS-SSIM (dB, -10 log10(1 - s))"),
        "<h2>BD-rate</h2>",
        "<p class=note>Mean difference in rate at equal quality; negative: fewer bits than the reference. Log-rate "
        "over quality, interpolated by PCHIP, over the range in dB that both curves reach, which is given beside it. "
        "Published curves are Kodak means.</p>",
        _table(
            ("against", "BD-rate, PSNR", "range", "BD-rate, MS-SSIM", "range", "source"),
            ((c.reference, *_difference(c.psnr), *_difference(c.ms_ssim), c.source) for c in run.comparisons),
        ),
        "<h2>Means</h2>",
        _table(
            ("codec", "level", "bpp", "PSNR (dB)", "MS-SSIM"),
            (
                (codec, p.level, f"{p.bpp:.4f}", f"{p.psnr:.3f}", f"{p.ms_ssim:.5f}")
                for codec, points in run.means.items()
                for p in points
            ),
        ),
        "<h2>Images</h2>",
        _table(
            ("image", "codec", "level", "bytes", "bpp", "PSNR (dB)", "MS-SSIM"),
            (
                (r.file, r.codec, r.level, f"{r.bytes:,}", f"{r.bpp:.4f}", f"{r.psnr:.3f}", f"{r.ms_ssim:.5f}")
                for r in run.results
            ),
        ),
    ]
    head = f"<meta charset=utf-8><title>{html.escape(run.title)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _lines(run: Run, metric: int) -> list[Line]:
    lines = [Line(name, curves(points)[metric], True) for name, points in run.means.items()]
    for anchor in run.anchors:
        curve = (anchor.psnr, anchor.ms_ssim)[metric]
        if curve and anchor.name in DRAWN:
            lines.append(Line(f"{anchor.name} (published)", curve, False))
    return lines


def _difference(rate: BdRate | None) -> tuple[str, str]:
    return (f"{rate.percent:+.1f} %", f"{rate.low:.1f} to {rate.high:.1f}") if rate else ("-", "")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def cells(tag: str, row: Sequence[object]) -> str:
        return "".join(f"<{tag}>{html.escape(str(x))}</{tag}>" for x in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
