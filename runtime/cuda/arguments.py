"""A kernel's arguments as the one block of bytes that a launch takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def packed(arguments: Sequence[np.generic]) -> bytes:
    """Numpy scalars and structs, each at the next multiple of its alignment, as compilers place parameters."""
    block = b""
    for argument in arguments:
        block += bytes(-len(block) % argument.dtype.alignment) + argument.tobytes()
    return block
