"""Speed and size of the entropy coder alone, on the symbols of real images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from condic.kernels import Decoder, Tables, encode, information_content
from condic.runtime.codec import Codec

T = TypeVar("T")


@dataclass(frozen=True)
class CoderSpeed:
    """The coder on one latent of one image: one thread, the fastest of some runs, in symbols per second.

    `information` is what the symbols cost under the quantised tables, in bytes; `scales[k]` counts the symbols coded
    with table k, `magnitudes[m]` those of magnitude m (the last entry: that and more).
    """

    file: str
    level: int
    latent: str
    symbols: int
    encode: float
    decode: float
    bytes: int
    information: float
    scales: tuple[int, ...]
    magnitudes: tuple[int, ...]


def measure_coder(codec: Codec, file: str, pixels: NDArray[np.uint8], level: int, repeats: int) -> CoderSpeed:
    """Times the coder on the latent with the most symbols."""
    tables = Tables(codec.bundle.tables["cdf"], codec.bundle.tables["radius"])
    latent = max(codec.host.quantise(pixels, level).latents, key=lambda x: sum(len(s) for s, _ in x.chunks))
    symbols, indexes = (np.concatenate(parts) for parts in zip(*latent.chunks, strict=True))
    payload, encode_seconds = _fastest(lambda: encode(tables, latent.chunks), repeats)

    def decode() -> list[NDArray[np.int16]]:
        decoder = Decoder(tables, payload)
        decoded = [decoder.decode(chunk) for _, chunk in latent.chunks]
        decoder.finish()
        return decoded

    decoded, decode_seconds = _fastest(decode, repeats)
    if not np.array_equal(np.concatenate(decoded), symbols):
        raise RuntimeError("the decoded symbols differ from the encoded ones")
    return CoderSpeed(
        file=file,
        level=level,
        latent=latent.name,
        symbols=len(symbols),
        encode=len(symbols) / encode_seconds,
        decode=len(symbols) / decode_seconds,
        bytes=len(payload),
        information=information_content(tables, symbols, indexes) / 8,
        scales=tuple(np.bincount(indexes, minlength=len(tables)).tolist()),
        magnitudes=tuple(np.bincount(np.minimum(np.abs(symbols), 31), minlength=32).tolist()),
    )


def _fastest(run: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The result of `run` and the seconds of the fastest of `repeats` runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return result, best
