"""Photographs in memory and random crops from them."""

from __future__ import annotations

import lzma
import tarfile
import warnings
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from condic.errors import CondicWarning, InputError
from condic.files import exists, named_errors, reason
from condic.runtime.image_files import SUFFIXES, read_picture
from condic.runtime.pictures import Picture

_PACKS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_MOST_DOWNSCALING = 2.0


@dataclass
class Photographs:
    """Decoded photographs, uint8 [H, W, 3] each, and what was left out: (name, reason)."""

    images: list[np.ndarray] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def load_photographs(paths: Sequence[Path], smallest_side: int) -> Photographs:
    """Decodes every image in folders (recursively), tar files and single files, once, into memory.

    They have the pixels that the codec will be given (see `read_picture`). Those that are broken, have a side below
    `smallest_side` or are transparent somewhere are skipped and named. Raises InputError if none is left.
    """
    result = Photographs()
    for path in paths:
        for name, data in _files(path):
            try:
                picture = _read(data)
            except InputError as error:
                result.skipped.append((name, str(error).removeprefix("data: ")))
                continue
            height, width = picture.rgb.shape[:2]
            if min(height, width) < smallest_side:
                result.skipped.append((name, f"{width}x{height} is below {smallest_side}"))
            elif picture.alpha is not None and picture.alpha.min() < 255:
                result.skipped.append((name, "transparent: what is below shows in no picture"))
            else:
                result.images.append(np.ascontiguousarray(picture.rgb))
    if not result.images:
        names = ", ".join(map(str, paths))
        first = "; {}: {}".format(*result.skipped[0]) if result.skipped else ""
        raise InputError(
            f"no usable photograph in {names} ({len(result.skipped)} skipped{first}); give folders, tar files or images"
        )
    return result


def _read(data: bytes) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CondicWarning)  # frames and bits that the codec could not hold anyway
        return read_picture(data)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if not exists(path):
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            yield from _files(file)
    elif path.name.lower().endswith(_PACKS):
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        yield f"{path.name}/{member.name}", archive.extractfile(member).read()
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{path}: not a readable tar file ({reason(error)})") from error
    elif path.suffix.lower() in SUFFIXES:
        with named_errors(path):
            data = path.read_bytes()
        yield str(path), data


@dataclass(frozen=True)
class CropSampler:
    """Random crops with random downscaling and flips. Batch `step` is a function of (seed, step) alone.

    So a resumed run sees the batches that an uninterrupted one would have seen.
    """

    images: Sequence[np.ndarray]
    size: int
    batch: int
    levels: int
    seed: int

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Crops uint8 [batch, size, size, 3] and quality levels int64 [batch] of a step."""
        rng = np.random.default_rng([self.seed, step])
        crops = np.stack([self._crop(rng) for _ in range(self.batch)])
        return crops, rng.integers(self.levels, size=self.batch)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        image = self.images[rng.integers(len(self.images))]
        factor = rng.uniform(1.0, min(_MOST_DOWNSCALING, min(image.shape[:2]) / self.size))
        if rng.random() < 0.5:
            factor = 1.0
        side = round(self.size * factor)
        top, left = (rng.integers(n - side + 1) for n in image.shape[:2])
        crop = image[top : top + side, left : left + side]
        if side != self.size:
            crop = np.asarray(Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.LANCZOS))
        return crop[:, ::-1] if rng.random() < 0.5 else crop

    def stream(self, first_step: int, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches from `first_step` on, made ahead of time by a pool of threads."""
        with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
            ahead: deque[Future] = deque()
            step = first_step
            try:
                while True:
                    while len(ahead) < 2 * workers:
                        ahead.append(pool.submit(self.at, step))
                        step += 1
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()
