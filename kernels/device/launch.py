"""Launches of the CUDA kernels, as values: which kernel, on how many threads, with what.

Nothing here needs CUDA. A driver (or the tests' emulator) runs a launch; its arguments are structs, byte for byte as
the kernels' sources in kernels/cuda declare them, in which a pointer is a device address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Address = int
"""Of device memory; 0 is none."""

THREADS = 256
"""Threads of a block, in every kernel."""

TILE = 4 * THREADS
"""Elements of a sequence that a block puts in order: see kernels/cuda/look_back.h."""


@dataclass(frozen=True, eq=False)
class Launch:
    """A kernel's launch. `arguments` are passed by value, in order; a numpy value's `tobytes()` is what to pass."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[np.void, ...]


def launch(kernel: str, blocks: int, task: np.void) -> Launch:
    """A launch of `blocks` blocks on a task."""
    return Launch(kernel, (blocks, 1, 1), (THREADS, 1, 1), (task,))


def tiles_of(size: int) -> int:
    """How many tiles a sequence is cut into: at least one."""
    return max(1, -(-size // TILE))


def scan_bytes(size: int) -> int:
    """Size of the workspace of a scan over a sequence: `Scan` in kernels/cuda/look_back.h."""
    return 8 * (1 + tiles_of(size))


def struct(*fields: tuple[str, Any] | tuple[str, Any, int]) -> np.dtype[np.void]:
    """A C struct's dtype."""
    return np.dtype(list(fields), align=True)


def fill(dtype: np.dtype[np.void], **values: object) -> np.void:
    """A struct with every field given."""
    if set(values) != set(dtype.names or ()):
        raise TypeError(f"fields {sorted(values)} are not those of {dtype}")
    result = np.zeros(1, dtype)
    for name, value in values.items():
        result[name][0] = value
    filled: np.void = result[0]
    return filled


def check_positive(what: str, sizes: Sequence[int], limit: int = 2**31 - 1) -> None:
    """Raises ValueError unless every size is 1 to `limit`, and so is their product."""
    product = 1
    for size in sizes:
        product *= size
    if min(sizes) < 1 or product > limit:
        raise ValueError(f"{what} {'x'.join(map(str, sizes))}: sizes must be positive, their product at most {limit}")
