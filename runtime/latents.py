"""Coding one latent by its schedule: run a chunk's context, quantise or decode its elements, go on."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.errors import IntegrityError, StreamError
from condic.runtime.manifest import Box, Chunk, Latent, Step
from condic.runtime.tiles import Evaluation

Tensor = npt.NDArray[np.float32]
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class EntropyTables:
    """What all latents of a bundle share: `first` holds per table name float32 [64, 2 C] of mu16 and scale index."""

    coder: kernels.Tables
    scales: int
    first: Mapping[str, Tensor]


@dataclass(frozen=True)
class Coded:
    """A latent on its way to bytes.

    Symbols int16 and table indexes uint8 per chunk, the chunks' checksums, and the latent as decoding will find it,
    int32 [C, H, W] in 1/16.
    """

    name: str
    integers: npt.NDArray[np.int32]
    chunks: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]
    checksums: bytes

    def section(self, tables: EntropyTables) -> bytes:
        """The latent's section: checksums, then the coder's payload."""
        return self.checksums + kernels.encode(tables.coder, self.chunks)


class _State:
    """A latent while it is coded: `integers` int32 [C, H, W] in 1/16 and `context` float32 [1, C, H, W].

    Both are tensors of the evaluation from the start, and filled in place chunk by chunk.
    """

    def __init__(self, latent: Latent, evaluation: Evaluation, tables: EntropyTables, quality: int) -> None:
        self.latent, self._evaluation, self._tables, self._quality = latent, evaluation, tables, quality
        height, width = evaluation.size
        self.integers = np.zeros((latent.channels, height // latent.stride, width // latent.stride), np.int32)
        self.context = np.zeros((1, *self.integers.shape), np.float32)
        evaluation.tensors[f"{latent.name}.context"] = self.context
        evaluation.sixteenths[f"{latent.name}.hat"] = self.integers[None]

    def parameters(self, chunk: Chunk) -> Tensor:
        """mu16 and scale index for a chunk, float32 [2, C, H, W]."""
        shape = (2, *self.integers.shape)
        if chunk.table is not None:
            row = self._tables.first[chunk.table][self._quality].reshape(2, -1, 1, 1)
            with self._evaluation.timings.stage("entropy_step"):
                return np.ascontiguousarray(np.broadcast_to(row, shape))
        assert chunk.graph is not None
        step = Step("run", chunk.graph, chunk.inputs, ("distribution",))
        return self._evaluation.compute(step, "distribution").reshape(shape)

    def boxes(self, chunk: Chunk) -> npt.NDArray[np.int32]:
        """The chunk's boxes on this latent's grid, as the kernels take them."""
        _, height, width = self.integers.shape
        return np.array([_strided_box(box, height, width) for box in chunk.boxes], np.int32)


def encode_latent(latent: Latent, evaluation: Evaluation, tables: EntropyTables, quality: int) -> Coded:
    """Quantises the tensor `NAME.y` chunk by chunk; gives `NAME.context` and `NAME.hat` to the evaluation.

    Nothing waits for the entropy coder.
    """
    y = evaluation.get_whole(f"{latent.name}.y")
    state = _State(latent, evaluation, tables, quality)
    chunks, checksums = [], b""
    for chunk in latent.chunks:
        parameters, boxes = state.parameters(chunk), state.boxes(chunk)
        with evaluation.timings.stage("entropy_step"):
            symbols, indexes, checksum = kernels.quantise_chunk(
                y[0], parameters, boxes, latent.first_coded, state.integers, state.context[0],
                latent.context_shift, latent.context_limit, tables.scales,
            )  # fmt: skip
        chunks.append((symbols, indexes))
        checksums += _CHECKSUM.pack(checksum)
    return Coded(latent.name, state.integers, chunks, checksums)


def decode_latent(
    latent: Latent, payload: bytes | memoryview, evaluation: Evaluation, tables: EntropyTables, quality: int
) -> npt.NDArray[np.int32]:
    """Decodes a section to integers [C, H, W] in 1/16; gives `NAME.context` and `NAME.hat` to the evaluation.

    Raises StreamError on a payload that the coder rejects, IntegrityError where a chunk's checksum does not match.
    """
    state, stage = _State(latent, evaluation, tables, quality), evaluation.timings.stage
    split = _CHECKSUM.size * len(latent.chunks)
    if len(payload) < split:
        raise StreamError(f"section {latent.name} is too short for its {len(latent.chunks)} checksums")
    try:
        decoder = kernels.Decoder(tables.coder, payload[split:])
        for number, chunk in enumerate(latent.chunks):
            parameters, boxes = state.parameters(chunk), state.boxes(chunk)
            with stage("entropy_step"):
                indexes = kernels.gather_indexes(parameters, boxes, latent.first_coded, tables.scales)
            with stage("coder"):
                symbols = decoder.decode(indexes)
            with stage("entropy_step"):
                checksum = kernels.scatter_symbols(
                    symbols, parameters, boxes, latent.first_coded, state.integers, state.context[0],
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
    return state.integers


def _strided_box(box: Box, height: int, width: int) -> tuple[int, ...]:
    begin, end = box.channels
    return begin, end, box.row_phase, height, box.period, box.column_phase, width, box.period
