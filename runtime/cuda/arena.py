"""Where the tensors of a program lie in one block of memory: those alive at the same time, apart."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 512
"""Bytes. TensorRT 8.6 takes scratch memory at multiples of a GPU's texture alignment, which this is."""


@dataclass(frozen=True)
class Layout:
    """Offsets by name, multiples of `ALIGNMENT`, and the size of the whole block."""

    offsets: Mapping[str, int]
    size: int


def lay_out(
    strands: Sequence[Sequence[Sequence[str]]], before: Sequence[Container[int]], sizes: Mapping[str, int]
) -> Layout:
    """Tensors lie apart, unless every use of the one comes before every use of the other.

    `strands` name, per operation of each, the tensors that it uses; `before` are, per strand, those that are over when
    it begins. `sizes` are in bytes. The largest are placed first, each at the lowest offset where it overlaps none of
    those placed that have to lie apart from it (greedy by size: Pisarchyk and Lee, arXiv 2001.03288).
    """
    lives: dict[str, dict[int, tuple[int, int]]] = {}
    for strand, operations in enumerate(strands):
        for number, names in enumerate(operations):
            for name in names:
                life = lives.setdefault(name, {})
                life[strand] = life.get(strand, (number, number))[0], number

    def over(name: str, other: str) -> bool:
        """Whether one is used for the last time before another is for the first."""
        return all(
            last < first if mine == its else mine in before[its]
            for mine, (_, last) in lives[name].items()
            for its, (first, _) in lives[other].items()
        )

    offsets: dict[str, int] = {}
    ends: dict[str, int] = {}
    for name in sorted(lives, key=lambda name: (-sizes[name], name)):
        size = -(-sizes[name] // ALIGNMENT) * ALIGNMENT
        apart = [x for x in offsets if not over(x, name) and not over(name, x)]
        at = 0
        for other in sorted(apart, key=offsets.__getitem__):
            if at + size <= offsets[other]:
                break
            at = max(at, ends[other])
        offsets[name], ends[name] = at, at + size
    return Layout(offsets, max(ends.values(), default=0))
