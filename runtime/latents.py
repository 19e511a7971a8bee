"""Coding one latent by its schedule: run a chunk's context, quantise or decode its elements, go on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.errors import IntegrityError, StreamError
from condic.runtime.manifest import Box, Chunk, Latent

Tensor = npt.NDArray[np.float32]
Tensors = dict[str, Tensor]
RunGraph = Callable[[str, Sequence[Tensor]], list[Tensor]]
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class EntropyTables:
    """What all latents of a bundle share: `first` holds per table name int [64, 2 C] of mu16 and scale index."""

    coder: kernels.Tables
    scales: int
    first: Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Coded:
    """Symbols int16 and their table indexes uint8, per chunk, in coding order; what `kernels.encode` takes."""

    chunks: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]


class LatentState:
    """A latent while it is coded: `integers` int32 [C, H, W] in 1/16 and `context` float32 [1, C, H, W]."""

    def __init__(self, latent: Latent, height: int, width: int) -> None:
        self.latent = latent
        self.integers = np.zeros((latent.channels, height // latent.stride, width // latent.stride), np.int32)
        self.context = np.zeros((1, *self.integers.shape), np.float32)

    @property
    def hat(self) -> Tensor:
        """The decoded latent as float graphs read it, float32 [1, C, H, W]."""
        reals: Tensor = self.integers.astype(np.float32) * np.float32(1 / 16)
        return reals[None]

    def parameters(self, chunk: Chunk, tables: EntropyTables, quality: int, tensors: Tensors, run: RunGraph) -> Tensor:
        """mu16 and scale index for a chunk, float32 [2, C, H, W]."""
        if chunk.graph is not None:
            output = run(chunk.graph, [tensors[name] for name in chunk.inputs])[0]
            return output.reshape(2, *self.integers.shape)
        assert chunk.table is not None
        row = tables.first[chunk.table][quality].reshape(2, -1, 1, 1)
        return np.ascontiguousarray(np.broadcast_to(row, (2, *self.integers.shape)))

    def boxes(self, chunk: Chunk) -> npt.NDArray[np.int32]:
        """The chunk's boxes on this latent's grid, as the kernels take them."""
        _, h, w = self.integers.shape
        return np.array([_grid(box, h, w) for box in chunk.boxes], np.int32)


def encode_latent(
    latent: Latent,
    y: Tensor,
    tables: EntropyTables,
    quality: int,
    tensors: Tensors,
    run: RunGraph,
    size: tuple[int, int],
) -> tuple[LatentState, Coded, bytes]:
    """Quantises `y` [1, C, H, W] chunk by chunk; the state, the symbols, and the latent's checksums.

    Sets `NAME.context` and `NAME.hat` in `tensors`. Nothing waits for the entropy coder.
    """
    state = LatentState(latent, *size)
    tensors[f"{latent.name}.context"] = state.context
    coded, checksums = Coded([]), b""
    for chunk in latent.chunks:
        parameters = state.parameters(chunk, tables, quality, tensors, run)
        symbols, indexes, checksum = kernels.quantise_chunk(
            y[0], parameters, state.boxes(chunk), latent.first_coded, state.integers, state.context[0],
            latent.context_shift, latent.context_limit, tables.scales,
        )  # fmt: skip
        coded.chunks.append((symbols, indexes))
        checksums += _CHECKSUM.pack(checksum)
    tensors[f"{latent.name}.hat"] = state.hat
    return state, coded, checksums


def decode_latent(
    latent: Latent, payload: bytes | memoryview, tables: EntropyTables, quality: int, tensors: Tensors, run: RunGraph,
    size: tuple[int, int],
) -> LatentState:  # fmt: skip
    """Decodes a section made of checksums and coder payload; sets `NAME.context` and `NAME.hat`.

    Raises StreamError on a payload that the coder rejects, IntegrityError where a chunk's checksum does not match.
    """
    state = LatentState(latent, *size)
    tensors[f"{latent.name}.context"] = state.context
    split = _CHECKSUM.size * len(latent.chunks)
    if len(payload) < split:
        raise StreamError(f"section {latent.name} is too short for its {len(latent.chunks)} checksums")
    try:
        decoder = kernels.Decoder(tables.coder, payload[split:])
        for number, chunk in enumerate(latent.chunks):
            parameters = state.parameters(chunk, tables, quality, tensors, run)
            boxes = state.boxes(chunk)
            indexes = kernels.gather_indexes(parameters, boxes, latent.first_coded, tables.scales)
            checksum = kernels.scatter_symbols(
                decoder.decode(indexes), parameters, boxes, latent.first_coded, state.integers, state.context[0],
                latent.context_shift, latent.context_limit, tables.scales,
            )  # fmt: skip
            if _CHECKSUM.pack(checksum) != bytes(payload[_CHECKSUM.size * number : _CHECKSUM.size * (number + 1)]):
                raise IntegrityError(
                    f"chunk {number} of latent {latent.name} does not have the encoder's checksum: the file is "
                    "damaged, or the backend that wrote or reads it computes wrongly (see condic-run doctor)"
                )
        decoder.finish()
    except ValueError as error:
        raise StreamError(f"section {latent.name}: {error}") from error
    tensors[f"{latent.name}.hat"] = state.hat
    return state


def encode_section(coded: Coded, checksums: bytes, tables: EntropyTables) -> bytes:
    """A latent's section: the chunks' checksums, then the coder's payload."""
    return checksums + kernels.encode(tables.coder, coded.chunks)


def _grid(box: Box, height: int, width: int) -> tuple[int, int, int, int, int, int, int, int]:
    begin, end = box.channels
    return begin, end, box.row_phase, height, box.period, box.column_phase, width, box.period
