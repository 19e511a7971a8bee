"""JPEG, as Pillow writes it with libjpeg-turbo: one thread."""

from __future__ import annotations

from condic.benchmarks.peers.pillow import PillowCodec


def open_codec(name: str, threads: int) -> PillowCodec:
    """The codec. Raises MissingError where Pillow was built without it."""
    options = {"subsampling": "4:2:0", "optimize": True}
    levels = (5, 10, 20, 30, 40, 55, 70, 85)
    return PillowCodec(name, "JPEG", levels, 55, options, "libjpeg_turbo").tried("pip install --upgrade pillow")
