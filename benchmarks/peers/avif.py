"""AVIF, as Pillow writes it with libavif."""

from __future__ import annotations

from condic.benchmarks.peers.pillow import PillowCodec


def open_codec(name: str, threads: int) -> PillowCodec:
    """The codec on so many threads (0: all). Raises MissingError where Pillow does not have it."""
    options: dict[str, object] = {"subsampling": "4:4:4", "speed": 6}
    if threads:
        options["max_threads"] = threads
        _decode_on(threads)
    codec = PillowCodec(name, "AVIF", (15, 25, 35, 45, 55, 65, 75, 85), 60, options, "avif")
    return codec.tried("Pillow 11.3 and newer have it")


def _decode_on(threads: int) -> None:
    """Pillow takes the threads of decoding from its module; older ones have no such module."""
    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return
    AvifImagePlugin.DEFAULT_MAX_THREADS = threads
