"""condic's own codecs behind the interface of the peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from condic.runtime.arrays import Pixels
from condic.runtime.codec import Codec
from condic.runtime.rate_control import DEFAULT_QUALITY


@dataclass(frozen=True)
class CondicCodec:
    """A condic codec under test."""

    codec: Codec
    levels: Sequence[int]
    usual_level: int = DEFAULT_QUALITY

    @property
    def name(self) -> str:
        """That of the bundle's file: models of one codec and preset are told apart by it."""
        return f"condic {Path(self.codec.bundle.source).stem}"

    @property
    def settings(self) -> str:
        """Model and backend."""
        return f"model {self.codec.bundle.id.hex()}, {self.codec.backend}"

    def encode(self, image: Pixels, level: int) -> bytes:
        """A condic file."""
        return self.codec.encode(image, level)

    def decode(self, data: bytes) -> Pixels:
        """The decoded image."""
        return self.codec.decode(data).image
