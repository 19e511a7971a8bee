"""Speed and size of the entropy coder alone: `python -m condic.benchmarks.coder`."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from condic.kernels import Decoder, Tables, encode, gaussian_tables, information_content

T = TypeVar("T")


def scale_table() -> NDArray[np.float64]:
    """64 standard deviations from 0.11 to 64, log-spaced."""
    return np.geomspace(0.11, 64.0, 64)


def photograph_like(count: int, seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Symbols and indexes as a photograph has them: scales from 0.13 to 8, most of them below 1."""
    scales = scale_table()
    generator = np.random.default_rng(seed)
    position = generator.uniform(size=(2, count)).min(axis=0)
    indexes = np.searchsorted(scales, 0.13 * (8 / 0.13) ** position).astype(np.uint8)
    symbols = np.rint(generator.normal(size=count) * scales[indexes]).astype(np.int16)
    return symbols, indexes


def fastest(run: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The result of `run` and the seconds of the fastest of `repeats` runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return result, best


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


@click.command()
@click.option("--npz", type=click.Path(exists=True, dir_okay=False), help="File with `symbols` and `indexes`.")
@click.option("--count", default=80_000, show_default=True, help="Symbols to make up where there is no file.")
@click.option("--chunks", default=8, show_default=True, help="Chunks to code them in.")
@click.option("--repeats", default=200, show_default=True, help="Runs, of which the fastest counts.")
def main(npz: str | None, count: int, chunks: int, repeats: int) -> None:
    """Time the entropy coder on one thread."""
    if npz is None:
        symbols, indexes = photograph_like(count)
    else:
        with np.load(npz) as arrays:
            symbols, indexes = arrays["symbols"].astype(np.int16), arrays["indexes"].astype(np.uint8)
    tables = Tables(*gaussian_tables(scale_table()))
    stream = list(zip(np.array_split(symbols, chunks), np.array_split(indexes, chunks), strict=True))

    def decode() -> NDArray[np.int16]:
        decoder = Decoder(tables, payload)
        decoded = [decoder.decode(chunk_indexes) for _, chunk_indexes in stream]
        decoder.finish()
        return np.concatenate(decoded)

    payload, encode_seconds = fastest(lambda: encode(tables, stream), repeats)
    decoded, decode_seconds = fastest(decode, repeats)
    if not np.array_equal(decoded, symbols):
        raise RuntimeError("the decoded symbols differ from the encoded ones")

    ideal = information_content(tables, symbols, indexes) / 8
    click.echo(f"cpu      {cpu_name()}, one thread")
    click.echo(f"symbols  {symbols.size}")
    click.echo(f"encode   {symbols.size / encode_seconds / 1e6:.0f} million symbols/s")
    click.echo(f"decode   {symbols.size / decode_seconds / 1e6:.0f} million symbols/s")
    click.echo(f"size     {len(payload)} bytes; {ideal:.0f} bytes of information")


if __name__ == "__main__":
    main()
