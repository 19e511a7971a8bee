"""The images that benchmarks run on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from condic.errors import InputError
from condic.files import exists
from condic.runtime.arrays import Pixels
from condic.runtime.image_files import SUFFIXES, read_picture


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images among files and in folders (not in theirs), sorted by name. Raises InputError if none."""
    found: list[Path] = []
    for path in paths:
        if not exists(path):
            raise InputError(f"{path}: no such file or folder")
        found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found:
        raise InputError(f"no image in {', '.join(map(str, paths))} (looked for {' '.join(SUFFIXES)})")
    return found


def read_rgb(path: Path) -> Pixels:
    """An image as uint8 [H, W, 3]; alpha is dropped. Raises InputError."""
    return read_picture(path).rgb
