"""Conditional learned image codecs, from PyTorch to a real bitstream.

    data = condic.encode(image, quality=32)      # uint8 array or PIL image to bytes
    image = condic.decode(data)                  # bytes to uint8 array

Everything that input can cause is a `CondicError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from condic.errors import (
    BackendError,
    BundleError,
    CondicError,
    CondicWarning,
    InputError,
    IntegrityError,
    StreamError,
)
from condic.version import __version__

if TYPE_CHECKING:
    from condic.functions import decode, encode, open_codec

__all__ = [
    "BackendError",
    "BundleError",
    "CondicError",
    "CondicWarning",
    "InputError",
    "IntegrityError",
    "StreamError",
    "__version__",
    "decode",
    "encode",
    "open_codec",
]


def __getattr__(name: str) -> Any:
    """Loads the functions, and numpy behind them, when first used: `import condic` costs milliseconds."""
    if name in ("decode", "encode", "open_codec"):
        from condic import functions

        return getattr(functions, name)
    raise AttributeError(f"module 'condic' has no attribute {name!r}")
