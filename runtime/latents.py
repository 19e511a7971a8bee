"""Coding one latent by its schedule: run a chunk's context, quantise or decode its elements, go on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.errors import IntegrityError, StreamError
from condic.runtime.guard import Rounding
from condic.runtime.manifest import Box, Chunk, Guard, Latent, Step
from condic.runtime.tiles import Evaluation, Region

Tensor = npt.NDArray[np.float32]
CHECKSUM = struct.Struct("<I")
"""Of a chunk, as sections begin with them."""


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


Distribution = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]
"""A chunk's mu16 and scale indexes, one of each per element, in coding order."""


class _State:
    """A latent while it is coded: `integers` int32 [C, H, W] in 1/16, filled chunk by chunk.

    The evaluation's tensors `NAME.context` and `NAME.hat` are made from it on demand.
    """

    def __init__(
        self, latent: Latent, evaluation: Evaluation, tables: EntropyTables, quality: int, rounding: Rounding
    ) -> None:
        self._latent, self._evaluation, self._tables, self._quality = latent, evaluation, tables, quality
        self._rounding = rounding
        height, width = evaluation.size
        self._unit = evaluation.alignment // latent.stride
        self.integers = np.zeros((latent.channels, height // latent.stride, width // latent.stride), np.int32)
        _give_context(latent, self.integers, evaluation)
        give_hat(latent.name, self.integers, evaluation)

    def distribution(self, chunk: Chunk, boxes: npt.NDArray[np.int32]) -> Distribution:
        """The chunk's distribution, gathered tile by tile from its graph's output or its table's row."""
        if self._latent.guard and chunk.graph:
            return self._guarded_distribution(chunk.graph, chunk.inputs, self._latent.guard)
        count = sum(_box_size(box) for box in boxes.tolist())
        mean, scale = np.empty(count, np.int16), np.empty(count, np.uint8)
        for tile in self._evaluation.tiles(self._evaluation.whole):
            planes = self._planes(chunk, tile)
            rows, columns = tile.slices(self._unit)
            with self._evaluation.timings.stage("entropy_step"):
                kernels.store_distribution(
                    planes, (rows.start, columns.start), self.integers.shape, boxes, self._tables.scales, mean, scale
                )
        return mean, scale

    def _guarded_distribution(self, graph: str, inputs: tuple[str, ...], guard: Guard) -> Distribution:
        predicted = self._run(graph, inputs)
        with self._evaluation.timings.stage("entropy_step"):
            mean, index = np.split(predicted, 2)
            delta = guard.at(self._quality)
            codes = self._rounding.round(mean * (16 / guard.mean_step), delta.mean)
            mu16 = np.clip(guard.mean_step * codes, -(2**15), 2**15 - 1)
            last = self._tables.scales - 1  # beyond the table no boundary is worth a note
            scale = np.clip(self._rounding.round(np.clip(index, 0, last), delta.index), 0, last)
            return mu16.ravel().astype(np.int16), scale.ravel().astype(np.uint8)

    def add_residual(self, chunk: Chunk) -> int:
        """Adds the predicted residual of a decoded chunk, if it has one; returns the checksum of what was added."""
        guard = self._latent.guard
        if chunk.residual is None or guard is None:
            return 0
        residual = self._run(chunk.residual, chunk.residual_inputs)
        with self._evaluation.timings.stage("entropy_step"):
            delta = guard.at(self._quality).residual
            codes = self._rounding.round(residual * (16 / guard.residual_step), delta)
            begin, end, *rest = strided_box(chunk.boxes[0], *self.integers.shape[1:])
            self.integers[begin:end, slice(*rest[:3]), slice(*rest[3:])] += guard.residual_step * codes
            return kernels.crc32c(np.ascontiguousarray(codes, "<i4").tobytes())

    def _run(self, graph: str, inputs: tuple[str, ...]) -> Tensor:
        """What a graph gives for the only box of a chunk, float32 [C, h, w]."""
        step = Step("run", graph, inputs, ("chunk",))
        values: Tensor = self._evaluation.assemble(step, step.outputs)["chunk"][0]
        return values

    def _planes(self, chunk: Chunk, tile: Region) -> Tensor:
        """Mean and scale index over a tile, float32 [2, C, h, w]."""
        rows, columns = tile.slices(self._unit)
        shape = (2, len(self.integers), rows.stop - rows.start, columns.stop - columns.start)
        if chunk.table is not None:
            row = self._tables.first[chunk.table][self._quality].reshape(2, -1, 1, 1)
            with self._evaluation.timings.stage("entropy_step"):
                return np.ascontiguousarray(np.broadcast_to(row, shape))
        assert chunk.graph is not None
        step = Step("run", chunk.graph, chunk.inputs, ("distribution",))
        return self._evaluation.run(step, tile)["distribution"].reshape(shape)

    def boxes(self, chunk: Chunk) -> npt.NDArray[np.int32]:
        """The chunk's boxes on this latent's grid, as the kernels take them."""
        _, height, width = self.integers.shape
        return np.array([strided_box(box, height, width) for box in chunk.boxes], np.int32)


def _give_context(latent: Latent, integers: npt.NDArray[np.int32], evaluation: Evaluation) -> None:
    """Makes the tensor `NAME.context` from a latent's integers, [C, H, W] in 1/16, on demand."""

    def context(rows: slice, columns: slice) -> Tensor:
        return kernels.context_inputs(
            integers, (rows.start, rows.stop), (columns.start, columns.stop),
            latent.context_shift, latent.context_limit,
        )[None]  # fmt: skip

    _give(f"{latent.name}.context", integers, evaluation, context)


def give_hat(name: str, integers: npt.NDArray[np.int32], evaluation: Evaluation) -> None:
    """Makes the tensor `NAME.hat` from a latent's integers, [C, H, W] in 1/16, on demand."""

    def hat(rows: slice, columns: slice) -> Tensor:
        reals = integers[None, :, rows, columns].astype(np.float32)
        reals *= np.float32(1 / 16)
        return reals

    _give(f"{name}.hat", integers, evaluation, hat)


def _give(
    name: str, integers: npt.NDArray[np.int32], evaluation: Evaluation, make: Callable[[slice, slice], Tensor]
) -> None:
    """Gives an evaluation a tensor that is made from rows and columns of a latent's integers.

    Nothing in it may hold the evaluation: an image's tensors would wait for Python to look for cycles, which it seldom
    does.
    """
    unit, timings = integers.shape[1] // evaluation.whole.bottom, evaluation.timings

    def source(region: Region) -> Tensor:
        with timings.stage("copies"):
            return make(*region.slices(unit))

    evaluation.sources[name] = source


def encode_latent(
    latent: Latent, evaluation: Evaluation, tables: EntropyTables, quality: int, rounding: Rounding
) -> Coded:
    """Quantises the tensor `NAME.y` chunk by chunk; gives `NAME.context` and `NAME.hat` to the evaluation.

    Nothing waits for the entropy coder. `rounding` serves guarded latents.
    """
    y = evaluation.keep(f"{latent.name}.y")
    state = _State(latent, evaluation, tables, quality, rounding)
    chunks, checksums = [], b""
    for chunk in latent.chunks:
        boxes = state.boxes(chunk)
        mean, scale = state.distribution(chunk, boxes)
        with evaluation.timings.stage("entropy_step"):
            symbols, indexes, checksum = kernels.quantise_chunk(
                y[0], mean, scale, boxes, latent.first_coded, state.integers
            )
        chunks.append((symbols, indexes))
        checksums += CHECKSUM.pack(checksum + state.add_residual(chunk) & 0xFFFFFFFF)
    return Coded(latent.name, state.integers, chunks, checksums)


def decode_latent(
    latent: Latent,
    payload: bytes | memoryview,
    evaluation: Evaluation,
    tables: EntropyTables,
    quality: int,
    rounding: Rounding,
) -> npt.NDArray[np.int32]:
    """Decodes a section to integers [C, H, W] in 1/16; gives `NAME.context` and `NAME.hat` to the evaluation.

    Raises StreamError on a payload that the coder rejects, IntegrityError where a chunk's checksum does not match.
    """
    state, stage = _State(latent, evaluation, tables, quality, rounding), evaluation.timings.stage
    split = CHECKSUM.size * len(latent.chunks)
    if len(payload) < split:
        raise StreamError(f"section {latent.name} is too short for its {len(latent.chunks)} checksums")
    try:
        decoder = kernels.Decoder(tables.coder, payload[split:])
        for number, chunk in enumerate(latent.chunks):
            boxes = state.boxes(chunk)
            mean, scale = state.distribution(chunk, boxes)
            with stage("entropy_step"):
                indexes = kernels.coded_indexes(scale, latent.first_coded)
            with stage("coder"):
                symbols = decoder.decode(indexes)
            with stage("entropy_step"):
                checksum = kernels.scatter_symbols(symbols, mean, scale, boxes, latent.first_coded, state.integers)
            checksum = checksum + state.add_residual(chunk) & 0xFFFFFFFF
            stored = payload[CHECKSUM.size * number : CHECKSUM.size * (number + 1)]
            check_checksum(checksum, stored, f"chunk {number} of latent {latent.name}")
        decoder.finish()
    except ValueError as error:
        raise StreamError(f"section {latent.name}: {error}") from error
    return state.integers


def check_checksum(checksum: int, stored: bytes | memoryview, what: str) -> None:
    """Raises IntegrityError unless decoding led to the encoder's checksum."""
    if CHECKSUM.pack(checksum) != bytes(stored):
        raise IntegrityError(
            f"{what} does not have the encoder's checksum: the file is damaged, or the backend that wrote or reads it "
            "computes wrongly (see condic-run doctor)"
        )


def _box_size(box: Sequence[int]) -> int:
    c0, c1, r0, r1, row_step, q0, q1, column_step = box
    return (c1 - c0) * len(range(r0, r1, row_step)) * len(range(q0, q1, column_step))


def strided_box(box: Box, height: int, width: int) -> tuple[int, ...]:
    """First and last channel; then begin, end and step of rows, and of columns."""
    rows, columns = (
        (phase * (size // box.period), (phase + 1) * (size // box.period), 1)
        if box.contiguous
        else (phase, size, box.period)
        for phase, size in ((box.row_phase, height), (box.column_phase, width))
    )
    return (*box.channels, *rows, *columns)
