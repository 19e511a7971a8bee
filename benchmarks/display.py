"""Results on a terminal: progress while measuring, then tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from condic.benchmarks.bd_rate import BdRate
from condic.benchmarks.coder import CoderSpeed
from condic.benchmarks.rate_distortion import RUN_HERE, Comparison, Mean
from condic.benchmarks.size import Size
from condic.benchmarks.speed import Speed, throughput


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error; call what it yields after each of `total` parts."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def show_speed(rows: Sequence[Speed], title: str) -> None:
    """Seconds per image and level, the share of each stage, and the throughput."""
    table = _table(title, "image", "pixels", "level", "bytes", "encode s", "decode s")
    for r in rows:
        table.add_row(
            r.file, f"{r.width}x{r.height}", str(r.level), f"{r.bytes:,}",
            f"{r.encode.seconds:.3f}", f"{r.decode.seconds:.3f}",
        )  # fmt: skip
    _print(table)
    stages = _table("seconds per stage, mean over the rows above", "stage", "encode s", "decode s")
    names = dict.fromkeys(name for r in rows for name in (*r.encode.stages, *r.decode.stages))
    for name in names:
        means = (sum(d.stages.get(name, 0.0) for d in side) / len(rows)
                 for side in ([r.encode for r in rows], [r.decode for r in rows]))  # fmt: skip
        stages.add_row(name, *(f"{x:.4f}" for x in means))
    _print(stages)
    encode, decode = throughput(rows)
    _print(f"encode {encode:.2f} megapixels/s, decode {decode:.2f} megapixels/s")


def show_coder(rows: Sequence[CoderSpeed], title: str) -> None:
    """Symbols per second and bytes against the information, per image and level."""
    table = _table(title, "image", "level", "latent", "symbols", "encode M/s", "decode M/s", "bytes", "information")
    for r in rows:
        table.add_row(
            r.file, str(r.level), r.latent, f"{r.symbols:,}", f"{r.encode / 1e6:.0f}", f"{r.decode / 1e6:.0f}",
            f"{r.bytes:,}", f"{r.information:,.1f}",
        )  # fmt: skip
    _print(table)


def show_sizes(rows: Sequence[Size], title: str) -> None:
    """Bytes per level against the information, and where they go."""
    names = [x.name for x in rows[0].latents]
    table = _table(f"bytes per image, {title}", "level", "file", "information", "coder", "framing", "excess",
                   *names)  # fmt: skip
    for r in rows:
        cells = (r.bytes, r.information, r.coder_overhead, r.framing)
        table.add_row(
            str(r.level), *(f"{x:,.1f}" for x in cells), f"{100 * (r.bytes / r.information - 1):.2f} %",
            *(f"{x.payload:,.1f}" for x in r.latents),
        )  # fmt: skip
    _print(table)
    _print("information: sum of -log2 p under the quantised tables; coder, framing: bytes on top of it")


def show_rate_distortion(
    measured: dict[str, list[Mean]], comparisons: Sequence[Comparison], title: str, published: bool
) -> None:
    """Means per level, and BD-rates."""
    table = _table(title, "codec", "level", "bpp", "PSNR dB", "MS-SSIM")
    for codec, points in measured.items():
        for p in points:
            table.add_row(codec, str(p.level), f"{p.bpp:.4f}", f"{p.psnr:.2f}", f"{p.ms_ssim:.4f}")
    _print(table)
    if comparisons:
        rates = _table("BD-rate over the common range of quality (PCHIP)", "against", "PSNR", "over dB", "MS-SSIM",
                       "over dB")  # fmt: skip
        for c in comparisons:
            name = c.reference if c.source == RUN_HERE else f"{c.reference} (published)"
            rates.add_row(name, *_cells(c.psnr), *_cells(c.ms_ssim))
        _print(rates)
    if not published:
        _print("not Kodak's 24 images: published curves are left out")


def _cells(rate: BdRate | None) -> tuple[str, str]:
    return (f"{rate.percent:+.1f} %", f"{rate.low:.1f} to {rate.high:.1f}") if rate else ("-", "")


def _table(title: str, *columns: str) -> Table:
    _print(f"\n{title}")
    table = Table(box=None, pad_edge=False)
    for k, name in enumerate(columns):
        table.add_column(name, justify="right" if k else "left", no_wrap=True)
    return table


def _print(content: str | Table) -> None:
    Console(highlight=False).print(content, soft_wrap=isinstance(content, str))
