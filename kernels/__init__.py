"""Native kernels, host side: the entropy coder and the entropy-parameter step."""

from condic.kernels.checksum import crc32c
from condic.kernels.coder import Decoder, Tables, encode, information_content
from condic.kernels.entropy_step import gather_indexes, quantise_chunk, scatter_symbols
from condic.kernels.tables import gaussian_tables

__all__ = [
    "Decoder",
    "Tables",
    "crc32c",
    "encode",
    "gather_indexes",
    "gaussian_tables",
    "information_content",
    "quantise_chunk",
    "scatter_symbols",
]
