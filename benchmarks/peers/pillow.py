"""Formats that Pillow, or a plugin of it, writes and reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

from condic.benchmarks.peers import MissingError
from condic.errors import InputError
from condic.files import reason
from condic.runtime.arrays import Pixels


@dataclass(frozen=True)
class PillowCodec:
    """A Pillow format. Levels are its values of `quality`, `options` what else `save` is given."""

    name: str
    format: str
    levels: tuple[int, ...]
    usual_level: int
    options: Mapping[str, object]
    library: str
    """The library behind it, as Pillow's `features` calls it, or its name and version."""

    @property
    def settings(self) -> str:
        """Library, version and options."""
        version = features.version(self.library) if self.library in features.get_supported() else None
        library = f"{self.library} {version}" if version else self.library
        return ", ".join([library, *(f"{name} {value}" for name, value in self.options.items())])

    def encode(self, image: Pixels, level: int) -> bytes:
        """A whole file. Raises InputError where the library refuses."""
        buffer = io.BytesIO()
        with self._named():
            Image.fromarray(image).save(buffer, self.format, quality=level, **self.options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """uint8 [H, W, 3]. Raises InputError where the library refuses."""
        with self._named(), Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.name}: {reason(error)}") from error

    def tried(self, remedy: str) -> PillowCodec:
        """This codec, after a small image went through it. Raises MissingError, with the remedy."""
        try:
            self.decode(self.encode(np.zeros((16, 16, 3), np.uint8), self.levels[0]))
        except (KeyError, InputError) as error:
            raise MissingError(f"this Pillow does not have {self.name} ({error}); {remedy}") from error
        return self
