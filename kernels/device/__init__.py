"""The kernels on a GPU: launches as pure functions of shapes and addresses, and the module that they run in."""

from __future__ import annotations

from condic.kernels.device.chunks import RESULT, Chunk, Decoded, Prediction, chunk_indexes, decode_chunk, encode_chunk
from condic.kernels.device.launch import Address, Launch
from condic.kernels.device.pixels import pixels_to_tensor, tensor_to_pixels

__all__ = [
    "RESULT",
    "Address",
    "Chunk",
    "Decoded",
    "Launch",
    "Prediction",
    "chunk_indexes",
    "decode_chunk",
    "encode_chunk",
    "pixels_to_tensor",
    "tensor_to_pixels",
]
