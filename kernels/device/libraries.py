"""Libraries of CUDA that NVIDIA's wheels bring, which no loader finds by itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path


def wheel_libraries(name: str) -> Iterator[Path]:
    """Where wheels in this environment have a library; `name` may be a pattern, as libcudart.so.*."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(folder).glob(f"*/**/{name}"))
