"""Rate and distortion in a report: curves, BD-rates, means, images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from condic.benchmarks.anchors import kodak_anchors
from condic.benchmarks.bd_rate import Curve, in_cells
from condic.benchmarks.rate_distortion import RateDistortion, curves
from condic.benchmarks.report.page import Section, figure, folded, note, table
from condic.benchmarks.report.theme import INK, panels, series, svg, themed

DRAWN = ("vtm", "bpg", "av1", "hyper", "mbt2018mean", "cheng_attn", "elic", "evc_S", "dcae")
"""Published curves that plots show; tables name all."""

_DASHES = ("--", ":", "-.")
_ROOM = 1.15


@dataclass(frozen=True)
class Line:
    """A curve with its name. `measured` ones are solid, published ones dashed; the first one is emphasised."""

    name: str
    curve: Curve
    measured: bool


def sections(run: RateDistortion) -> list[Section]:
    """Curves with BD-rates, and the numbers behind them."""
    first = run.images[0]
    images = sum((r.codec, r.level) == (first.codec, first.level) for r in run.images)
    axes = ("PSNR (dB)", "MS-SSIM (dB, -10 log10(1 - s))")
    plots = "".join(
        figure(draw(_lines(run, metric), name), f"{name} over rate, mean of {images} images")
        for metric, name in enumerate(axes)
    )
    means = [
        (codec, str(p.level), f"{p.bpp:.4f}", f"{p.psnr:.3f}", f"{p.ms_ssim:.5f}")
        for codec, points in run.means.items()
        for p in points
    ]
    single = [
        (r.file, r.codec, str(r.level), f"{r.bytes:,}", f"{r.bpp:.4f}", f"{r.psnr:.3f}", f"{r.ms_ssim:.5f}")
        for r in run.images
    ]
    differences = [(c.reference, *in_cells(c.psnr), *in_cells(c.ms_ssim), c.source) for c in run.bd_rate]
    body = [
        note(
            f"{images} images, RGB. Rates are those of whole files. PSNR and MS-SSIM are taken on 8-bit RGB, image by "
            "image, and averaged at each level.",
            *(f"{name}: {text}" for name, text in run.settings.items()),
        ),
        plots,
        table(
            (f"{run.codec} against", "BD-rate, PSNR", "over dB", "BD-rate, MS-SSIM", "over dB", "source"),
            differences,
            "Mean difference in rate at equal quality; negative: fewer bits than the reference",
        ),
        note(
            "The logarithm of the rate over quality, interpolated by monotone cubics (PCHIP), over the range that both "
            "curves reach. Published curves are means over Kodak.",
            *run.gaps(),
        ),
        folded("Means", table(("codec", "level", "bpp", "PSNR dB", "MS-SSIM"), means)),
        folded("Images", table(("image", "codec", "level", "bytes", "bpp", "PSNR dB", "MS-SSIM"), single)),
    ]
    return [Section("rates", "Rate and distortion", "".join(body))]


def draw(lines: Sequence[Line], quality: str) -> str:
    """Curves as SVG, `quality` the vertical axis; both axes cover the first curve with some room around it."""
    own = [point for point in zip(lines[0].curve.bpp, lines[0].curve.quality, strict=True) if math.isfinite(point[1])]
    rates, qualities = [x for x, _ in own] or [1.0], [x for _, x in own] or [0.0]
    with themed():
        plot, (axes,) = panels(8.4, 4.6)
        for k, line in enumerate(lines):
            axes.plot(
                line.curve.bpp,
                line.curve.quality,
                label=line.name,
                color=INK if k == 0 else series(k - 1),
                linestyle="-" if line.measured else _DASHES[k % len(_DASHES)],
                linewidth=2.4 if k == 0 else 1.4,
                marker="o" if line.measured else None,
                markersize=4 if k == 0 else 3,
                zorder=3 if k == 0 else 2,
            )
        span = max(qualities) - min(qualities) or 1.0
        axes.set_xlim(0, max(rates) * _ROOM)
        axes.set_ylim(min(qualities) - (_ROOM - 1) * span, max(qualities) + (_ROOM - 1) * span)
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(quality)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return svg(plot, f"{quality} over bits per pixel")


def _lines(run: RateDistortion, metric: int) -> list[Line]:
    lines = [Line(name, curves(points)[metric], True) for name, points in run.means.items()]
    for anchor in kodak_anchors() if run.published else ():
        curve = (anchor.psnr, anchor.ms_ssim)[metric]
        if curve and anchor.name in DRAWN:
            lines.append(Line(f"{anchor.name} (published)", curve, False))
    return lines
