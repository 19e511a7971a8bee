"""Real file sizes against what the symbols' probabilities ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.benchmarks.images import read_rgb
from condic.runtime.bitstream import read_stream
from condic.runtime.codec import Codec
from condic.runtime.latents import Coded, EntropyTables, Tensors, encode_latent
from condic.runtime.pixels import to_tensor

Pixels = npt.NDArray[np.uint8]


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
        """Bytes of header, section headers and checksums."""
        return self.bytes - sum(x.payload for x in self.latents)


def measure_size(codec: Codec, image: Pixels, level: int) -> Size:
    """Encodes an image, uint8 [H, W, 3], and takes its file apart."""
    data = codec.encode(image, level)
    sections = read_stream(data).sections
    tables = kernels.Tables(codec.bundle.tables["cdf"], codec.bundle.tables["radius"])
    latents = []
    for section, (name, coded) in zip(sections, _symbols(codec, tables, image, level).items(), strict=True):
        information = sum(kernels.information_content(tables, *chunk) for chunk in coded.chunks) / 8
        checksums = 4 * len(coded.chunks)
        symbols = sum(len(symbols) for symbols, _ in coded.chunks)
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


def mean_size_of_files(codec: Codec, images: Sequence[Path], level: int) -> Size:
    """`mean_size` of image files at a level."""
    return mean_size([measure_size(codec, read_rgb(path), level) for path in images])


def _symbols(codec: Codec, tables: kernels.Tables, image: Pixels, level: int) -> dict[str, Coded]:
    """What encoding hands to the entropy coder, per latent: the bundle's encoding steps once more."""
    bundle = codec.bundle
    first = {name: table.astype(np.float32) for name, table in bundle.tables.items() if name.startswith("first.")}
    entropy = EntropyTables(tables, bundle.manifest.scales, first)
    tensors: Tensors = {
        name: table[level].astype(np.float32).reshape(1, -1, 1, 1)
        for name, table in bundle.tables.items()
        if name.startswith("quality.")
    }
    tensors["image"] = to_tensor(image, bundle.manifest.alignment)
    size = tensors["image"].shape[2], tensors["image"].shape[3]
    result = {}
    for step in bundle.manifest.encode:
        if step.op == "run":
            outputs = codec.graphs.run(step.target, [tensors[name] for name in step.inputs])
            tensors.update(zip(step.outputs, outputs, strict=True))
            continue
        latent = bundle.manifest.latent(step.target)
        y = np.ascontiguousarray(tensors[f"{latent.name}.y"])
        _, result[latent.name], _ = encode_latent(latent, y, entropy, level, tensors, codec.graphs.run, size)
    return result
