"""JPEG XL, through pillow-jxl-plugin with libjxl."""

from __future__ import annotations

from importlib.metadata import version

from condic.benchmarks.peers import MissingError
from condic.benchmarks.peers.pillow import PillowCodec

_REMEDY = "pip install pillow-jxl-plugin"


def open_codec(name: str, threads: int) -> PillowCodec:
    """The codec on so many threads (0: all). Raises MissingError where the plugin is not installed."""
    try:
        from pillow_jxl import JpegXLImagePlugin
    except ImportError as error:
        raise MissingError(f"jxl needs a plugin of Pillow: {_REMEDY}") from error
    options: dict[str, object] = {"effort": 7}
    if threads:
        options["num_threads"] = JpegXLImagePlugin.DECODE_THREADS = threads
    library = f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"
    return PillowCodec(name, "JXL", (5, 20, 25, 40, 55, 70, 80, 88), 70, options, library).tried(_REMEDY)
