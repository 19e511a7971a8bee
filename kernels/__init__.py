"""Native kernels, host side: the entropy coder and the entropy-parameter step."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from condic.kernels.checksum import crc32c

if TYPE_CHECKING:
    from condic.kernels.coder import Decoder, Tables, encode, information_content
    from condic.kernels.entropy_step import (
        StridedBox,
        coded_indexes,
        context_inputs,
        quantise_chunk,
        scatter_symbols,
        store_distribution,
    )
    from condic.kernels.tables import gaussian_tables

__all__ = [
    "Decoder",
    "StridedBox",
    "Tables",
    "coded_indexes",
    "context_inputs",
    "crc32c",
    "encode",
    "gaussian_tables",
    "information_content",
    "quantise_chunk",
    "scatter_symbols",
    "store_distribution",
]

_MODULES = {
    "coder": ("Decoder", "Tables", "encode", "information_content"),
    "entropy_step": (
        "StridedBox",
        "coded_indexes",
        "context_inputs",
        "quantise_chunk",
        "scatter_symbols",
        "store_distribution",
    ),
    "tables": ("gaussian_tables",),
}


def __getattr__(name: str) -> Any:
    """Loads what needs numpy when first used: the checksum alone does not."""
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"condic.kernels.{module}"), name)
            return value
    raise AttributeError(f"module 'condic.kernels' has no attribute {name!r}")
