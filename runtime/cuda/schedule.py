"""Which strands of a segment run at the same time: a stream for each, and those that it waits for there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from condic.runtime.cuda.program import GraphRun, Strand

_GRAPH = 16
"""Kernels or copies that take about as long as a graph."""


@dataclass(frozen=True)
class Turn:
    """When a strand runs: on a stream, numbered from 0, behind those before it there, once those `after` are over.

    `before`: all strands that are over when it begins.
    """

    stream: int
    after: tuple[int, ...]
    before: frozenset[int]


def take_turns(strands: Sequence[Strand]) -> list[Turn]:
    """A turn for each strand, none before what it needs.

    The first goes before all others and the last behind them, both on stream 0. Where several wait for the same, the
    one with the most work between it and the end goes on in its stream.
    """
    count = len(strands)
    needs = [[i for i in range(j) if i == 0 or j == count - 1 or strands[j].needs(strands[i])] for j in range(count)]
    heirs, left = [0] * count, [0] * count  # who goes on in a strand's stream; work from it to the end
    for i in reversed(range(count)):
        later = [j for j in range(i + 1, count) if i in needs[j]]
        heirs[i] = max(later, key=left.__getitem__, default=count)
        left[i] = _work(strands[i]) + (left[heirs[i]] if later else 0)
    turns: list[Turn] = []
    streams = 0
    for j, earlier in enumerate(needs):
        mine = [i for i in earlier if heirs[i] == j]
        if mine:
            last = min(mine, key=lambda i: turns[i].stream)
            stream, before = turns[last].stream, turns[last].before | {last}
        else:
            stream, before = streams, frozenset()
            streams += 1
        after = []
        for i in reversed(earlier):
            if i not in before:
                after.append(i)
                before |= turns[i].before | {i}
        turns.append(Turn(stream, tuple(after), before))
    return turns


def _work(strand: Strand) -> int:
    """How long it takes, about, in kernels or copies."""
    return sum(_GRAPH if isinstance(x, GraphRun) else 1 for x in strand.operations)
