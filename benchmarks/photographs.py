"""Photographs scaled to the sizes that speed is measured at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from condic.benchmarks.images import find_images, read_rgb
from condic.errors import InputError
from condic.runtime.arrays import Pixels
from condic.runtime.bitstream import Limits

NAMED = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
"""Width and height of sizes with a name."""
MOST_PHOTOGRAPHS = 8
"""So many of a folder's photographs are used."""


@dataclass(frozen=True)
class Resolution:
    """A size in pixels and how it was asked for."""

    name: str
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        """10^6 pixels."""
        return self.width * self.height / 1e6


def parse_resolution(text: str) -> Resolution:
    """`720p`, `1080p`, `4k`, or width x height as in `512x768`. Raises InputError."""
    if text.lower() in NAMED:
        return Resolution(text.lower(), *NAMED[text.lower()])
    numbers = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text.lower())
    if not numbers:
        raise InputError(f"unknown resolution {text!r}; known: {', '.join(NAMED)}, or WIDTHxHEIGHT such as 512x768")
    width, height = int(numbers[1]), int(numbers[2])
    if not width * height:
        raise InputError(f"resolution {text!r} has no pixels")
    Limits().check(width, height)
    return Resolution(text.lower(), width, height)


def find_photographs(folder: Path | None) -> tuple[Path, ...]:
    """The first photographs of a folder (or the one file), or the photograph that comes with condic."""
    return tuple(find_images([folder or Path(str(files("condic.benchmarks") / "data" / "coffee.png"))]))[
        :MOST_PHOTOGRAPHS
    ]


def scaled(path: Path, resolution: Resolution) -> tuple[Pixels, float]:
    """A photograph, uint8 [height, width, 3], and the factor by which it was enlarged (below 1: reduced).

    It is turned by 90 degrees where that spares enlarging, scaled with Lanczos' filter until it covers the size, and
    cut to it around the middle.
    """
    image = Image.fromarray(read_rgb(path))
    if (image.width > image.height) != (resolution.width > resolution.height):
        image = image.transpose(Image.Transpose.ROTATE_90)
    size = resolution.width, resolution.height
    factor = max(size[0] / image.width, size[1] / image.height)
    return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS)), factor
