"""Where the time goes: seconds per stage of encoding or decoding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BETWEEN_GRAPHS = ("pixels", "entropy_step", "coder", "copies")
"""Stages that are no graph: between uint8 pixels and tensors; quantising and placing a chunk's elements; the entropy
coder; and cutting or converting tensors between graphs. All other stages are graphs, by role."""


@dataclass
class Timings:
    """Seconds per stage, summed: graph roles, and those of `BETWEEN_GRAPHS`. Stages do not nest."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
