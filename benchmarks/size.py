"""Real file sizes against what the symbols' probabilities ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from condic import kernels
from condic.runtime.arrays import Pixels
from condic.runtime.bitstream import read_stream
from condic.runtime.codec import Codec


@dataclass(frozen=True)
class LatentSize:
    """A latent's share of a file, in bytes: information of its symbols, the coder's payload, its chunks' checksums.

    Information is the sum of -log2 p under the quantised tables, an escaped symbol counted as its table's escape
    symbol and 16 bits.
    """

    name: str
    symbols: float
    information: float
    payload: float
    checksums: float


@dataclass(frozen=True)
class Size:
    """A file, or the mean over several: its bytes, and its latents' shares. The rest is headers and their checksums."""

    level: int
    bytes: float
    latents: tuple[LatentSize, ...]

    @property
    def information(self) -> float:
        """Bytes that an ideal coder needs."""
        return sum(x.information for x in self.latents)

    @property
    def coder_overhead(self) -> float:
        """Bytes that the entropy coder adds."""
        return sum(x.payload for x in self.latents) - self.information

    @property
    def framing(self) -> float:
        """Bytes of header, section headers and checksums, and of the guard where the model has one."""
        return self.bytes - sum(x.payload for x in self.latents)


def measure_size(codec: Codec, image: Pixels, level: int) -> Size:
    """Encodes an image, uint8 [H, W, 3], and takes its file apart."""
    tables = kernels.Tables(codec.bundle.tables["cdf"], codec.bundle.tables["radius"])
    quantised = codec.host.quantise(image, level)
    data = codec.pack(quantised)
    latents = []
    for latent, section in zip(quantised.latents, read_stream(data).sections, strict=False):
        name, chunks = latent.name, latent.chunks
        information = sum(kernels.information_content(tables, *chunk) for chunk in chunks) / 8
        checksums = 4 * len(chunks)
        symbols = sum(len(symbols) for symbols, _ in chunks)
        latents.append(LatentSize(name, symbols, information, len(section.payload) - checksums, checksums))
    return Size(level, len(data), tuple(latents))


def mean_size(sizes: Sequence[Size]) -> Size:
    """The mean over files of one level."""
    latents = tuple(
        LatentSize(
            rows[0].name,
            mean(x.symbols for x in rows),
            mean(x.information for x in rows),
            mean(x.payload for x in rows),
            mean(x.checksums for x in rows),
        )
        for rows in zip(*(s.latents for s in sizes), strict=True)
    )
    return Size(sizes[0].level, mean(s.bytes for s in sizes), latents)
