"""condic's own codecs behind the interface of the peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        """Codec and preset."""
        return f"condic {self.codec.bundle.manifest.name}"

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
