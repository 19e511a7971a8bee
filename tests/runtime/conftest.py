"""condic-run in processes of its own, with standard streams of bytes; memory that is watched."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NEED_MODEL = {"encode", "decode", "preview", "verify", "doctor"}


@dataclass(frozen=True)
class Ended:
    """How a process ended; `err` is text."""

    code: int
    out: bytes
    err: str


Program = Callable[..., Ended]
MostAllocated = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def at_most_allocated() -> MostAllocated:
    """`with at_most_allocated(n)` fails if Python has more than n bytes at once within it."""

    @contextmanager
    def watch(limit: int) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < limit
        finally:
            tracemalloc.stop()

    return watch


@pytest.fixture
def program(tmp_path: Path, bundle_path: Path) -> Program:
    """`program(*words, stdin=b"", before="")` runs condic-run in `tmp_path` with preset t; `before` is Python code."""
    pytest.importorskip("onnxruntime")

    def run(*words: object, stdin: bytes = b"", before: str = "", stdout: object = subprocess.PIPE) -> Ended:
        arguments = [*map(str, words), *(["--model", str(bundle_path)] if words[0] in NEED_MODEL else [])]
        code = f"{before}\nfrom condic.runtime.cli import main\nmain()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, input=stdin, stdout=stdout,  # type: ignore[call-overload]
            stderr=subprocess.PIPE, timeout=120, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout or b"", done.stderr.decode())

    return run


@pytest.fixture
def pictures(tmp_path: Path, drawing: Callable[..., np.ndarray]) -> list[Path]:
    """a.png, b.png and c.png in `tmp_path`, of 3, 4 and 1 channels."""
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, channels in zip(paths, (3, 4, 1), strict=True):
        pixels = drawing(40, 50, channels)
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
    return paths
