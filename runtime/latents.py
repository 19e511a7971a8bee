"""Coding one latent by its schedule: run a chunk's context, quantise or decode its elements, go on."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.errors import IntegrityError, StreamError
from condic.kernels import StridedBox
from condic.runtime.arrays import Integers, Tensor
from condic.runtime.guard import Rounding
from condic.runtime.manifest import Chunk, Guard, Latent, Step
from condic.runtime.tiles import Evaluation, Region

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
    integers: Integers
    chunks: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]
    checksums: list[int]

    def section(self, tables: EntropyTables) -> bytes:
        """The latent's section."""
        return LatentSection.of(self.checksums, kernels.encode(tables.coder, self.chunks))


class LatentSection:
    """A latent's section of a file: a checksum for each chunk, then the coder's payload."""

    def __init__(self, latent: str, chunks: int, data: bytes | memoryview) -> None:
        """Raises StreamError where it is too short for its checksums."""
        split = _CHECKSUM.size * chunks
        if len(data) < split:
            raise StreamError(f"section {latent} is too short for its {chunks} checksums")
        self._latent, self._checksums, self.payload = latent, data[:split], data[split:]

    @staticmethod
    def of(checksums: Sequence[int], payload: bytes) -> bytes:
        """The section's bytes."""
        return b"".join(_CHECKSUM.pack(x) for x in checksums) + payload

    def check(self, chunk: int, checksum: int) -> None:
        """Raises IntegrityError unless decoding a chunk led to the encoder's checksum."""
        (stored,) = _CHECKSUM.unpack_from(self._checksums, _CHECKSUM.size * chunk)
        if checksum != stored:
            raise IntegrityError(
                f"chunk {chunk} of latent {self._latent} does not have the encoder's checksum: the file is damaged, or "
                "the backend that wrote or reads it computes wrongly (see condic-run doctor)"
            )

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """What the coder rejects becomes a StreamError that names the section."""
        try:
            yield
        except ValueError as error:
            raise StreamError(f"section {self._latent}: {error}") from error


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

    def distribution(self, chunk: Chunk, boxes: Sequence[StridedBox]) -> Distribution:
        """The chunk's distribution, gathered tile by tile from its graph's output or its table's row."""
        if self._latent.guard and chunk.graph:
            return self._guarded_distribution(chunk.graph, chunk.inputs, self._latent.guard)
        count = sum(math.prod(box.shape) for box in boxes)
        mean, scale = np.empty(count, np.int16), np.empty(count, np.uint8)
        for tile in self._evaluation.tiles(self._evaluation.whole):
            planes = self._planes(chunk, tile)
            rows, columns = tile.slices(self._unit)
            with self._evaluation.timings.stage("entropy_step"):
                kernels.store_distribution(
                    planes, (rows.start, columns.start), self.integers.shape, _rows(boxes), self._tables.scales, mean,
                    scale,
                )  # fmt: skip
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
            (box,) = self.boxes(chunk)
            self.integers[box.slices] += guard.residual_step * codes
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

    def boxes(self, chunk: Chunk) -> list[StridedBox]:
        """The chunk's boxes on this latent's grid."""
        _, height, width = self.integers.shape
        return [box.on(height, width) for box in chunk.boxes]


def _give_context(latent: Latent, integers: Integers, evaluation: Evaluation) -> None:
    """Makes the tensor `NAME.context` from a latent's integers, [C, H, W] in 1/16, on demand."""

    def context(rows: slice, columns: slice) -> Tensor:
        return kernels.context_inputs(
            integers, (rows.start, rows.stop), (columns.start, columns.stop),
            latent.context_shift, latent.context_limit,
        )[None]  # fmt: skip

    _give(f"{latent.name}.context", integers, evaluation, context)


def give_hat(name: str, integers: Integers, evaluation: Evaluation) -> None:
    """Makes the tensor `NAME.hat` from a latent's integers, [C, H, W] in 1/16, on demand."""

    def hat(rows: slice, columns: slice) -> Tensor:
        reals = integers[None, :, rows, columns].astype(np.float32)
        reals *= np.float32(1 / 16)
        return reals

    _give(f"{name}.hat", integers, evaluation, hat)


def _give(name: str, integers: Integers, evaluation: Evaluation, make: Callable[[slice, slice], Tensor]) -> None:
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
    chunks, checksums = [], []
    for chunk in latent.chunks:
        boxes = state.boxes(chunk)
        mean, scale = state.distribution(chunk, boxes)
        with evaluation.timings.stage("entropy_step"):
            symbols, indexes, checksum = kernels.quantise_chunk(
                y[0], mean, scale, _rows(boxes), latent.first_coded, state.integers
            )
        chunks.append((symbols, indexes))
        checksums.append(checksum + state.add_residual(chunk) & 0xFFFFFFFF)
    return Coded(latent.name, state.integers, chunks, checksums)


def decode_latent(
    latent: Latent,
    data: bytes | memoryview,
    evaluation: Evaluation,
    tables: EntropyTables,
    quality: int,
    rounding: Rounding,
) -> Integers:
    """Decodes a section to integers [C, H, W] in 1/16; gives `NAME.context` and `NAME.hat` to the evaluation.

    Raises StreamError on a payload that the coder rejects, IntegrityError where a chunk's checksum does not match.
    """
    state, stage = _State(latent, evaluation, tables, quality, rounding), evaluation.timings.stage
    section = LatentSection(latent.name, len(latent.chunks), data)
    with section.named_errors():
        decoder = kernels.Decoder(tables.coder, section.payload)
    for number, chunk in enumerate(latent.chunks):
        boxes = state.boxes(chunk)
        mean, scale = state.distribution(chunk, boxes)
        with stage("entropy_step"):
            indexes = kernels.coded_indexes(scale, latent.first_coded)
        with stage("coder"), section.named_errors():
            symbols = decoder.decode(indexes)
        with stage("entropy_step"):
            checksum = kernels.scatter_symbols(symbols, mean, scale, _rows(boxes), latent.first_coded, state.integers)
        section.check(number, checksum + state.add_residual(chunk) & 0xFFFFFFFF)
    with section.named_errors():
        decoder.finish()
    return state.integers


def _rows(boxes: Sequence[StridedBox]) -> npt.NDArray[np.int32]:
    """Boxes as the kernels take them."""
    return np.array(boxes, np.int32)
