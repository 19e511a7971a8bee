"""WebP (lossy), as Pillow writes it with libwebp: one thread."""

from __future__ import annotations

from condic.benchmarks.peers.pillow import PillowCodec


def open_codec(name: str, threads: int) -> PillowCodec:
    """The codec. Raises MissingError where Pillow was built without it."""
    levels = (1, 5, 15, 30, 45, 60, 75, 88)
    return PillowCodec(name, "WEBP", levels, 60, {"method": 6}, "webp").tried("pip install --upgrade pillow")
