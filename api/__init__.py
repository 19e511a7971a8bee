"""Conditional learned image codecs, from PyTorch to a real bitstream."""

from condic.version import __version__

__all__ = ["__version__"]
