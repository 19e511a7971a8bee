"""A second encoder of the entropy coder's payload, written from the description in kernels/rans_stream.h."""

from __future__ import annotations

import struct
from collections.abc import Sequence

LOW = 1 << 16

Stream = list[list[tuple[int, int]]]  # chunks of (symbol, index)


def leb128(value: int) -> bytes:
    return bytes([128 | value & 127]) + leb128(value >> 7) if value > 127 else bytes([value])


def reference_encode(cdfs: Sequence[Sequence[int]], stream: Stream, log2_lanes: int, groups: int) -> bytes:
    """The payload of a stream under tables of these cumulative frequencies."""
    lanes = groups << log2_lanes
    radii = [(len(cdf) - 3) // 2 for cdf in cdfs]
    states = [LOW] * lanes
    words: list[list[int]] = [[] for _ in range(groups)]
    for chunk in reversed(stream):
        for i, (symbol, index) in reversed(list(enumerate(chunk))):
            radius, lane = radii[index], i % lanes
            entry = symbol + radius if abs(symbol) <= radius else 2 * radius + 1
            start, end = cdfs[index][entry], cdfs[index][entry + 1]
            if states[lane] >= (end - start) << 17:
                words[lane >> log2_lanes].append(states[lane] & 0xFFFF)
                states[lane] >>= 16
            quotient, remainder = divmod(states[lane], end - start)
            states[lane] = (quotient << 15) + start + remainder
    escapes = [symbol for chunk in stream for symbol, index in chunk if abs(symbol) > radii[index]]
    payload = bytes([log2_lanes | (groups > 1) << 3 | bool(escapes) << 4])
    payload += bytes([groups - 1]) if groups > 1 else b""
    payload += leb128(len(escapes)) if escapes else b""
    payload += b"".join(struct.pack("<I", len(group)) for group in words[:-1])
    for group, group_words in enumerate(words):
        own = states[group << log2_lanes : (group + 1) << log2_lanes]
        payload += struct.pack(f"<{len(own)}I{len(group_words)}H", *own, *reversed(group_words))
    return payload + struct.pack(f"<{len(escapes)}h", *escapes)
