"""The kernels on a GPU: launches as pure functions of shapes and addresses, and the module that they run in."""

from __future__ import annotations

from condic.kernels.device.chunks import (
    RESULT,
    ChunkLayout,
    DecodeTargets,
    Prediction,
    chunk_indexes,
    decode_chunk,
    encode_chunk,
)
from condic.kernels.device.image import compile_image, device_image
from condic.kernels.device.launch import Address, Launch
from condic.kernels.device.pixels import pixels_to_tensor, tensor_to_pixels
from condic.kernels.device.rans import (
    DECODER,
    ENCODER,
    RANS_WHILE_DECODING,
    DeviceTables,
    StreamLayout,
    rans_close,
    rans_open,
    rans_pop,
    rans_problem,
    tables_image,
)

__all__ = [
    "DECODER",
    "ENCODER",
    "RANS_WHILE_DECODING",
    "RESULT",
    "Address",
    "ChunkLayout",
    "DecodeTargets",
    "DeviceTables",
    "Launch",
    "Prediction",
    "StreamLayout",
    "chunk_indexes",
    "compile_image",
    "decode_chunk",
    "device_image",
    "encode_chunk",
    "pixels_to_tensor",
    "rans_close",
    "rans_open",
    "rans_pop",
    "rans_problem",
    "tables_image",
    "tensor_to_pixels",
]
