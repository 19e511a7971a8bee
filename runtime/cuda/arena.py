"""Where the tensors of a sequence of operations lie in one block of memory: those alive at the same time, apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 512
"""Bytes. TensorRT 8.6 takes scratch memory at multiples of a GPU's texture alignment, which this is."""


@dataclass(frozen=True)
class Layout:
    """Offsets by name, multiples of `ALIGNMENT`, and the size of the whole block."""

    offsets: Mapping[str, int]
    size: int


def lay_out(uses: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> Layout:
    """A tensor lives from the first to the last operation that uses it; `uses` names, per operation, those it does.

    `sizes` are in bytes. The largest are placed first, each at the lowest offset where it overlaps none of those placed
    that live when it does (greedy by size: Pisarchyk and Lee, arXiv 2001.03288).
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, names in enumerate(uses):
        for name in names:
            first.setdefault(name, number)
            last[name] = number
    offsets: dict[str, int] = {}
    ends: dict[str, int] = {}
    for name in sorted(first, key=lambda name: (-sizes[name], name)):
        size = -(-sizes[name] // ALIGNMENT) * ALIGNMENT
        beside = [x for x in offsets if first[x] <= last[name] and first[name] <= last[x]]
        at = 0
        for other in sorted(beside, key=offsets.__getitem__):
            if at + size <= offsets[other]:
                break
            at = max(at, ends[other])
        offsets[name], ends[name] = at, at + size
    return Layout(offsets, max(ends.values(), default=0))
