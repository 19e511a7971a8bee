"""Writes the seed corpus of both fuzzers into tests/fuzz/corpus: run it again when a format changes.

coder/: inputs of coder_fuzzer.cpp, which says how they are read. decoder/: whole files of preset t.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

from condic.runtime.bundle import read_bundle
from condic.runtime.codec import Codec
from condic.runtime.metadata import Metadata
from condic.runtime.pictures import Picture

TESTS = Path(__file__).resolve().parents[1]
CORPUS = TESTS / "fuzz" / "corpus"
sys.path.insert(0, str(TESTS / "kernels"))
from test_stream_format import CDFS, RADIUS, Stream, reference_encode  # noqa: E402

OWN_TABLES, ENCODE = 1, 2
"""Flags in an input's first byte."""


def tables(cdfs: list[list[int]], radius: list[int]) -> bytes:
    """Tables as an input holds them."""
    values = [x for cdf in cdfs for x in cdf]
    return struct.pack(f"<B{len(radius)}iH{len(values)}H", len(radius), *radius, len(values), *values)


def indexes(seed: int, size: int, count: int) -> list[int]:
    """The harness's table indexes of a chunk."""
    result, state = [], seed
    for _ in range(size):
        state = (state * 1664525 + 1013904223) % 2**32
        result.append((state >> 24) % count)
    return result


def stream_of(chunks: list[tuple[int, int]], spread: float) -> Stream:
    """Symbols of a given spread for chunks of (size, seed), with their indexes."""
    generator = np.random.default_rng(len(chunks))
    return [
        [(round(generator.normal() * spread), index) for index in indexes(seed, size, len(RADIUS))]
        for size, seed in chunks
    ]


def payload_input(chunks: list[tuple[int, int]], log2_lanes: int, groups: int, spread: float) -> bytes:
    """A payload that decodes."""
    stream = stream_of(chunks, spread)
    payload = reference_encode(CDFS, stream, log2_lanes, groups) if any(stream) else b""
    head = bytes([OWN_TABLES]) + tables(CDFS, RADIUS) + bytes([len(chunks)])
    return head + b"".join(struct.pack("<HB", *chunk) for chunk in chunks) + payload


def coder_inputs() -> dict[str, bytes]:
    """Seeds of coder_fuzzer.cpp by name."""
    result = {
        f"payload-{1 << k}-lanes-{groups}-groups": payload_input([(40, 1), (0, 2), (90, 3)], k, groups, 0.8)
        for k, groups in ((0, 1), (1, 1), (5, 1), (0, 2), (2, 3), (0, 256))
    }
    result["payload-of-escapes"] = payload_input([(30, 7)], 0, 1, 3000)
    result["payload-of-nothing"] = payload_input([(0, 1)], 0, 1, 1)
    result["index-of-no-table"] = payload_input([(40, 255)], 0, 1, 0.8)
    symbols = np.random.default_rng(1).integers(-(2**15), 2**15, 60).astype("<i2").tobytes()
    result["symbols-built-in"] = bytes([ENCODE, 2]) + struct.pack("<HBHB", 50, 9, 10, 4) + symbols
    result["symbols-own"] = bytes([ENCODE | OWN_TABLES]) + tables(CDFS, RADIUS) + b"\1\x3c\0\5" + symbols
    result["payload-built-in"] = bytes([0, 1]) + struct.pack("<HBBI", 200, 9, 0, 2**31 - 1) + symbols
    result["tables-that-fall"] = bytes([OWN_TABLES]) + tables([[0, 9, 8, 32768]], [0])
    result["tables-too-short"] = bytes([OWN_TABLES]) + tables([[0, 9, 32768]], [1])
    result["tables-too-wide"] = bytes([OWN_TABLES]) + tables([[0, 9, 32768]], [2**31 - 1])
    return result


def decoder_inputs() -> dict[str, bytes]:
    """Whole files: every flag, several chunks, extreme levels."""
    codec = Codec(read_bundle(TESTS / "data" / "dcic-sgp-t.condic"))
    generator = np.random.default_rng(2)
    grey, pair, rgb, rgba = (generator.integers(0, 256, (9, 11, k)).astype(np.uint8) for k in (1, 2, 3, 4))
    return {
        "one-pixel": codec.encode(rgb[:1, :1], 0),
        "grey": codec.encode(grey, 63),
        "grey-alpha": codec.encode(pair, 20),
        "rgb": codec.encode(rgb, 40),
        "rgba": codec.encode(rgba, 5),
        "metadata": codec.encode(Picture(rgb, None, False, Metadata(b"profile", b"II*\0" + bytes(6), b"<x/>")), 10),
        "two-windows": codec.encode(np.tile(rgb, (1, 14, 1)), 30),
    }


def main() -> None:
    """Writes every seed."""
    for folder, inputs in (("coder", coder_inputs()), ("decoder", decoder_inputs())):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (CORPUS / folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
