"""The entropy-parameter step on a GPU: kernels/cuda/chunk_kernels.h. `condic.kernels.entropy_step` is its host twin.

A chunk is encoded by one launch, `encode_chunk`. It is decoded by two, `chunk_indexes` and `decode_chunk`, between
which its symbols are decoded. Launches of one stream run in order, so nothing has to wait on the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condic.kernels.device.launch import Address, Launch, check_positive, fill, launch, scan_bytes, struct, tiles_of
from condic.kernels.entropy_step import StridedBox

MAX_BOXES = 64
"""Of a chunk."""

RESULT = struct(("coded", np.uint32), ("checksum", np.uint32))
"""What a chunk's launches find: the number of coded elements, and the checksum of the decoded ones."""

_DIVISOR = struct(("magic", np.uint32), ("shift", np.uint32))
_BOX = struct(
    ("begin", np.uint32), ("columns", np.uint32), ("rows", np.uint32), ("by_columns", _DIVISOR), ("by_rows", _DIVISOR),
    ("first_channel", np.uint32), ("first_row", np.uint32), ("row_step", np.uint32), ("first_column", np.uint32),
    ("column_step", np.uint32),
)  # fmt: skip
_PREDICTION = struct(
    ("means", np.uint64), ("scales_at", np.uint32), ("channel_stride", np.uint32), ("row_stride", np.uint32),
    ("column_stride", np.uint32),
)  # fmt: skip
_TASK = struct(
    ("prediction", _PREDICTION), ("y", np.uint64), ("latents", np.uint64), ("context", np.uint64), ("hat", np.uint64),
    ("symbols", np.uint64), ("indexes", np.uint64), ("result", np.uint64), ("scan", np.uint64),
    ("escape_scan", np.uint64), ("decoder", np.uint64), ("not_finite", np.uint64), ("size", np.uint32),
    ("rows", np.uint32), ("columns", np.uint32), ("scales", np.int32), ("first_coded", np.int32),
    ("context_shift", np.int32), ("context_limit", np.int32), ("box_count", np.uint32), ("boxes", _BOX, MAX_BOXES),
)  # fmt: skip


@dataclass(frozen=True)
class ChunkLayout:
    """A chunk of a latent [C, H, W], and how its elements are coded.

    There are 1 to 256 scales, and elements with a scale index below `first_coded` are not coded. Contexts read the
    latent divided by 2**context_shift, rounded half up, clipped to +-context_limit.
    """

    shape: tuple[int, int, int]
    boxes: tuple[StridedBox, ...]
    scales: int
    first_coded: int
    context_shift: int
    context_limit: int

    def __post_init__(self) -> None:
        """Raises ValueError for boxes that leave the latent, too many of them, and numbers out of range."""
        check_positive("latent", (2, *self.shape))
        if len(self.boxes) > MAX_BOXES:
            raise ValueError(f"a chunk of {len(self.boxes)} boxes; a GPU takes {MAX_BOXES}")
        channels, rows, columns = self.shape
        for box in self.boxes:
            c0, c1, r0, r1, rstep, q0, q1, qstep = box
            if not (0 <= c0 <= c1 <= channels and 0 <= r0 <= r1 <= rows and 0 <= q0 <= q1 <= columns
                    and min(rstep, qstep) >= 1):  # fmt: skip
                raise ValueError(f"box {tuple(box)} does not lie within {self.shape}")
        if self.size > np.prod(self.shape, dtype=np.int64):
            raise ValueError("the boxes hold more elements than the latent")
        if not (1 <= self.scales <= 256 and 0 <= self.first_coded <= 256):
            raise ValueError(f"{self.scales} scales, coded from {self.first_coded}: 1 to 256 and 0 to 256 are possible")
        if not (0 <= self.context_shift <= 20 and 0 <= self.context_limit <= 2**24):
            raise ValueError("context_shift must be 0 to 20, context_limit 0 to 2^24")

    @property
    def size(self) -> int:
        """Number of elements: symbols and indexes need room for so many."""
        return sum(math.prod(box.shape) for box in self.boxes)

    @property
    def scan_bytes(self) -> int:
        """Size of the workspace `scan` of a launch, aligned to 8 bytes, which must be zero before it."""
        return 2 * scan_bytes(self.size)


@dataclass(frozen=True)
class Prediction:
    """Where mean and scale index come from: a graph's output, float32 [2 C, H, W], or a table's row, float32 [2 C]."""

    address: Address
    is_row: bool = False


@dataclass(frozen=True)
class DecodeTargets:
    """Where decoded elements go, in place, each [C, H, W]; 0 is nowhere. All but the chunk's elements stay as they are.

    `latents`: int32, in 1/16. `context`: float32, what contexts read. `hat`: float32, the decoded latent.
    """

    latents: Address = 0
    context: Address = 0
    hat: Address = 0


def encode_chunk(
    chunk: ChunkLayout, prediction: Prediction, y: Address, decoded: DecodeTargets, *, symbols: Address,
    indexes: Address, result: Address, scan: Address, not_finite: Address = 0,
) -> Launch:  # fmt: skip
    """Quantise a chunk of y (float32 [C, H, W]) as `entropy_step.quantise_chunk` does.

    Args:
        symbols, indexes: int16 and uint8 with room for every element: the coded ones' q and table, in coding order.
        result: a `RESULT`, zero before the launch: both fields.
        scan: workspace of `chunk.scan_bytes` bytes, zero before the launch.
        not_finite: uint32 that becomes 1 if y has an infinity or NaN.
    """
    return _launch(
        "encode_chunk", chunk, prediction, decoded, y=y, symbols=symbols, indexes=indexes, result=result, scan=scan,
        not_finite=not_finite,
    )  # fmt: skip


def chunk_indexes(
    chunk: ChunkLayout, prediction: Prediction, *, indexes: Address, result: Address, scan: Address
) -> Launch:
    """The tables of a chunk's coded elements, uint8 in coding order, and in `result` their number.

    `scan` is zero before the launch and stays as it is until `decode_chunk` has run.
    """
    return _launch(
        "chunk_indexes", chunk, prediction, DecodeTargets(), y=0, symbols=0, indexes=indexes, result=result, scan=scan
    )


def decode_chunk(
    chunk: ChunkLayout, prediction: Prediction, decoded: DecodeTargets, *, symbols: Address, result: Address,
    scan: Address, decoder: Address = 0,
) -> Launch:  # fmt: skip
    """Decoded values of a chunk from its symbols (int16, in coding order), and in `result` their checksum.

    The prediction, `result` and `scan` are those of `chunk_indexes`, which has run. `decoder` is that of `rans_pop`
    where the symbols come from there; their escaped values are filled in.
    """
    return _launch(
        "decode_chunk", chunk, prediction, decoded, y=0, symbols=symbols, indexes=0, result=result, scan=scan,
        decoder=decoder,
    )  # fmt: skip


def _launch(
    kernel: str, chunk: ChunkLayout, prediction: Prediction, decoded: DecodeTargets, *, y: Address, symbols: Address,
    indexes: Address, result: Address, scan: Address, decoder: Address = 0, not_finite: Address = 0,
) -> Launch:  # fmt: skip
    channels, rows, columns = chunk.shape
    strides = (1, 0, 0) if prediction.is_row else (rows * columns, columns, 1)
    source = fill(
        _PREDICTION, means=prediction.address, scales_at=channels * strides[0], channel_stride=strides[0],
        row_stride=strides[1], column_stride=strides[2],
    )  # fmt: skip
    boxes, count = _boxes(chunk)
    task = fill(
        _TASK, prediction=source, y=y, latents=decoded.latents, context=decoded.context, hat=decoded.hat,
        symbols=symbols, indexes=indexes, result=result, scan=scan, escape_scan=scan + scan_bytes(chunk.size),
        decoder=decoder, not_finite=not_finite, size=chunk.size, rows=rows, columns=columns, scales=chunk.scales,
        first_coded=chunk.first_coded, context_shift=chunk.context_shift, context_limit=chunk.context_limit,
        box_count=count, boxes=boxes,
    )  # fmt: skip
    return launch(kernel, tiles_of(chunk.size), task)


def _boxes(chunk: ChunkLayout) -> tuple[npt.NDArray[np.void], int]:
    """The boxes that are not empty, as the kernels take them, and their number."""
    result = np.zeros(MAX_BOXES, _BOX)
    begin = count = 0
    for box in chunk.boxes:
        _, rows, columns = box.shape
        if math.prod(box.shape) == 0:
            continue
        result[count] = fill(
            _BOX, begin=begin, columns=columns, rows=rows, by_columns=_divisor(columns), by_rows=_divisor(rows),
            first_channel=box.first_channel, first_row=box.first_row, row_step=box.row_step,
            first_column=box.first_column, column_step=box.column_step,
        )  # fmt: skip
        begin += math.prod(box.shape)
        count += 1
    return result, count


def _divisor(divisor: int) -> np.void:
    """What `divide` in chunk.h takes: n * magic >> shift is n // divisor for every n below 2^31."""
    shift = 31 + (divisor - 1).bit_length()
    return fill(_DIVISOR, magic=-(-(1 << shift) // divisor), shift=shift)
