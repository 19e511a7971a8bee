"""Conditional learned image codecs, from PyTorch to a real bitstream.

    data = condic.encode(image, quality=32)      # array, PIL image or image file to bytes
    image = condic.decode(data)                  # file or bytes to a uint8 array
    coded = condic.open("photo.cdic")            # size, mode, metadata; decode() and preview()
    files = condic.encode_many(images)           # one is coded while the next is analysed; decode_many likewise

Everything that input can cause is a `CondicError`; what is lost on the way is a `CondicWarning`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from condic.errors import (
    BackendError,
    BundleError,
    CondicError,
    CondicWarning,
    InputError,
    IntegrityError,
    LimitError,
    StreamError,
)
from condic.version import __version__

if TYPE_CHECKING:
    from condic.coded_image import CodedImage, open
    from condic.functions import decode, decode_many, encode, encode_many, open_codec
    from condic.runtime.bitstream import Limits
    from condic.runtime.codec import Codec, Decoded
    from condic.runtime.metadata import Metadata

__all__ = [
    "BackendError",
    "BundleError",
    "Codec",
    "CodedImage",
    "CondicError",
    "CondicWarning",
    "Decoded",
    "InputError",
    "IntegrityError",
    "LimitError",
    "Limits",
    "Metadata",
    "StreamError",
    "__version__",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "open",
    "open_codec",
]

_LATE = {
    "Codec": "condic.runtime.codec:Codec",
    "CodedImage": "condic.coded_image:CodedImage",
    "Decoded": "condic.runtime.codec:Decoded",
    "Limits": "condic.runtime.bitstream:Limits",
    "Metadata": "condic.runtime.metadata:Metadata",
    "decode": "condic.functions:decode",
    "decode_many": "condic.functions:decode_many",
    "encode": "condic.functions:encode",
    "encode_many": "condic.functions:encode_many",
    "open": "condic.coded_image:open",
    "open_codec": "condic.functions:open_codec",
}


def __getattr__(name: str) -> Any:
    """Loads what is heavy, and numpy behind it, when first used: `import condic` costs milliseconds."""
    if name not in _LATE:
        raise AttributeError(f"module 'condic' has no attribute {name!r}")
    module, _, attribute = _LATE[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
