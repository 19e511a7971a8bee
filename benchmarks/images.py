"""The images that benchmarks run on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from condic.errors import InputError
from condic.runtime.image_files import SUFFIXES, read_picture
from condic.runtime.pictures import Pixels


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images among files and in folders (not in theirs), sorted by name. Raises InputError if none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"no image in {', '.join(map(str, paths))} (looked for {' '.join(SUFFIXES)})")
    return found


def read_rgb(path: Path) -> Pixels:
    """An image as uint8 [H, W, 3]; alpha is dropped. Raises InputError."""
    return read_picture(path).rgb
