"""The entropy coder on a GPU: kernels/cuda/rans_encode_kernels.h and rans_decode_kernels.h, tables, workspaces.

The bytes are those of `condic.kernels.encode`. A stream is encoded by three launches, once all its chunks have been
quantised. It is decoded by `rans_open`, then for each chunk `chunk_indexes`, `rans_pop` and `decode_chunk`, and at last
`rans_close`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from condic.kernels._native import GROUP_BYTES
from condic.kernels.coder import Tables
from condic.kernels.device.launch import Address, Launch, check_positive, fill, launch, struct, tiles_of

MAX_CHUNKS = 64
"""Of a stream that a GPU encodes."""

_MAX_GROUPS = 256
_MAX_LANES = 32
_GROUP_BLOCKS = 32  # blocks of eight warps, a warp for each group
_PARTS = 16  # blocks that pack a group

_TABLES = struct(
    ("buckets", np.uint64), ("intervals", np.uint64), ("first", np.uint64), ("push", np.uint64), ("radius", np.uint64),
    ("looks", np.uint64), ("table_looks", np.uint64), ("look_count", np.uint32), ("count", np.uint32),
)  # fmt: skip
_GROUP = struct(("first", np.uint32), ("words", np.uint32), ("next", np.uint32))

DECODER = struct(
    ("error", np.uint32), ("log2_lanes", np.uint32), ("groups", np.uint32), ("escapes", np.uint32),
    ("escapes_at", np.uint32), ("escapes_used", np.uint32), ("escapes_of_chunk", np.uint32), ("unused", np.uint32),
    ("payload", np.uint64), ("group", _GROUP, _MAX_GROUPS), ("states", np.uint32, _MAX_GROUPS * _MAX_LANES),
)  # fmt: skip
"""A payload on its way to symbols. `error` (see `rans_problem`) is of interest after `rans_close`."""

ENCODER = struct(
    ("error", np.uint32), ("size", np.uint32), ("cost", np.uint64), ("escapes", np.uint32), ("log2_lanes", np.uint32),
    ("groups", np.uint32), ("room", np.uint32), ("words", np.uint32, _MAX_GROUPS),
    ("states", np.uint32, _MAX_GROUPS * _MAX_LANES),
)  # fmt: skip
"""A stream on its way to a payload. Afterwards `size` is the payload's, in bytes, unless there is an `error`."""

_OPEN = struct(("payload", np.uint64), ("size", np.uint64), ("decoder", np.uint64))
_POP = struct(
    ("tables", _TABLES), ("decoder", np.uint64), ("result", np.uint64), ("indexes", np.uint64), ("symbols", np.uint64)
)
_CLOSE = struct(("decoder", np.uint64))
_ENCODE = struct(
    ("tables", _TABLES), ("symbols", np.uint64), ("indexes", np.uint64), ("entries", np.uint64),
    ("results", np.uint64), ("encoder", np.uint64), ("scan", np.uint64), ("escapes", np.uint64), ("words", np.uint64),
    ("payload", np.uint64), ("chunk_count", np.uint32), ("begin", np.uint32, MAX_CHUNKS),
    ("first_tile", np.uint32, MAX_CHUNKS),
)  # fmt: skip

_PROBLEMS = {
    1: "the entropy-coded payload is damaged: its header is not valid",
    2: "the entropy-coded payload is damaged: it has fewer symbols than were asked for",
    4: "the entropy-coded payload is damaged: it has fewer words than its symbols need",
    8: "the entropy-coded payload is damaged: it has fewer escaped values than its symbols need",
    16: "the entropy-coded payload is damaged: words are left over",
    32: "the entropy-coded payload is damaged: a lane does not end in its initial state",
    64: "the entropy-coded payload is damaged: escaped values are left over",
    128: "more than 2^28 - 1 symbols are out of range",
}

RANS_WHILE_DECODING = 1 | 2 | 4 | 8
"""The bits of those after which symbols are not the stream's; the others are found at its end."""


def rans_problem(error: int) -> str | None:
    """What an `error` says, the first thing if there are several; None if it is 0."""
    return next((text for bit, text in _PROBLEMS.items() if error & bit), None)


@dataclass(frozen=True)
class DeviceTables:
    """The entropy coder's tables in device memory: at `address` (a multiple of 16) lies a copy of `tables_image`."""

    address: Address
    tables: Tables

    @cached_property
    def struct(self) -> np.void:
        """Their `RansTables`, which every launch that codes has among its arguments."""
        sizes = [len(array) for array in self.tables._native.arrays()]
        push, looks, buckets, intervals, first, radius, table_looks = accumulate(sizes[:-1], initial=self.address)
        return fill(
            _TABLES, push=push, buckets=buckets, intervals=intervals, first=first, radius=radius, looks=looks,
            table_looks=table_looks, look_count=sizes[1] // 8, count=len(self.tables),
        )  # fmt: skip


def tables_image(tables: Tables) -> bytes:
    """What `DeviceTables` wants to find at its address."""
    return b"".join(tables._native.arrays())


@dataclass(frozen=True)
class StreamLayout:
    """The chunks of a stream that is to be encoded, one after the other. `rooms` has the elements of each.

    A chunk's symbols and indexes begin at `begin(chunk)` of the stream's.
    """

    rooms: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for too many chunks or elements."""
        if not 1 <= len(self.rooms) <= MAX_CHUNKS:
            raise ValueError(f"a stream of {len(self.rooms)} chunks; a GPU encodes 1 to {MAX_CHUNKS}")
        if min(self.rooms) < 0:
            raise ValueError(f"a chunk of {min(self.rooms)} elements")
        check_positive("stream", (4, max(1, self.size)))

    def begin(self, chunk: int) -> int:
        """Number of the first element of a chunk."""
        return sum(self.rooms[:chunk])

    @property
    def size(self) -> int:
        """Elements of all chunks."""
        return sum(self.rooms)

    @property
    def payload_bytes(self) -> int:
        """Room for the longest payload that the stream can have."""
        return 6 + 4 * _MAX_GROUPS + 4 * _MAX_LANES * self._groups + 4 * self.size

    @property
    def zero_bytes(self) -> int:
        """How much of the workspace must be zero before encoding, from its start on."""
        return ENCODER.itemsize + 8 * (1 + self._tiles)

    @property
    def workspace_bytes(self) -> int:
        """Size of the workspace, which begins with an `ENCODER`; aligned to 16 bytes."""
        return self._words_at + 2 * (self.size + len(self.rooms) * self._groups * _MAX_LANES)

    @property
    def _entries_at(self) -> int:
        return self.zero_bytes

    @property
    def _escapes_at(self) -> int:
        return self._entries_at + 4 * self.size

    @property
    def _words_at(self) -> int:
        return self._escapes_at + 2 * self.size

    @property
    def _groups(self) -> int:
        """The most that `choose_lanes` in kernels/rans_payload.h can choose."""
        return min(_MAX_GROUPS, max(1, (self.size + GROUP_BYTES // 2) // GROUP_BYTES))

    @property
    def _tiles(self) -> int:
        return sum(map(tiles_of, self.rooms))

    def encode(
        self, tables: DeviceTables, *, symbols: Address, indexes: Address, results: Address, workspace: Address,
        payload: Address,
    ) -> tuple[Launch, Launch, Launch]:  # fmt: skip
        """The launches that turn the stream into its payload; `ENCODER` at the workspace's start has its size.

        Args:
            tables: what to code with.
            symbols, indexes, results: int16, uint8 and a `RESULT` for each chunk, as `encode_chunk` leaves them.
            workspace: `workspace_bytes` bytes, the first `zero_bytes` of them zero before the launches.
            payload: room for `payload_bytes` bytes.
        """
        task = fill(
            _ENCODE, tables=tables.struct, symbols=symbols, indexes=indexes, entries=workspace + self._entries_at,
            results=results, encoder=workspace, scan=workspace + ENCODER.itemsize,
            escapes=workspace + self._escapes_at, words=workspace + self._words_at, payload=payload,
            chunk_count=len(self.rooms), begin=_padded(self.rooms),
            first_tile=_padded(tuple(map(tiles_of, self.rooms))),
        )  # fmt: skip
        return (
            launch("rans_resolve", self._tiles, task),
            launch("rans_push", min(self._groups, _GROUP_BLOCKS), task),
            launch("rans_pack", self._groups * _PARTS, task),
        )


def _padded(sizes: tuple[int, ...]) -> list[int]:
    """Where parts of these sizes begin, one after the other."""
    begins = list(accumulate(sizes[:-1], initial=0))
    return begins + [0] * (MAX_CHUNKS - len(begins))


def rans_open(payload: Address, size: Address, decoder: Address) -> Launch:
    """Read the head of a payload, whose size in bytes is the uint32 at `size`, into a `DECODER`.

    The payload may be anything; it stays until `rans_close` has run.
    """
    return launch("rans_open", 1, fill(_OPEN, payload=payload, size=size, decoder=decoder))


def rans_pop(tables: DeviceTables, decoder: Address, *, indexes: Address, result: Address, symbols: Address) -> Launch:
    """Decode the next chunk: its symbols (int16) from the indexes and the `result` that `chunk_indexes` gave.

    Values beyond a table's radius come as -32768; `decode_chunk`, which has to follow, puts them in place.
    """
    task = fill(
        _POP, tables=tables.struct, decoder=decoder, result=result, indexes=indexes, symbols=symbols
    )  # fmt: skip
    return launch("rans_pop", _GROUP_BLOCKS, task)


def rans_close(decoder: Address) -> Launch:
    """Check, after the last chunk, that the payload has been used up and led back to the initial states."""
    return launch("rans_close", 1, fill(_CLOSE, decoder=decoder))
