"""A bundle's step list as operations on named device tensors, for one size of image.

A program is cut into segments, and the host waits at the end of each. There is one, unless the host is to decode
symbols: then a segment ends wherever the device has found the tables that a chunk's symbols are decoded with. The
operations of a segment come in strands, which may run at the same time where none needs what the other makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.kernels.device import RESULT, Launch
from condic.runtime.cuda.arena import ALIGNMENT
from condic.runtime.cuda.graph import Execution
from condic.runtime.manifest import Kind, Size, is_first_table, is_quality_table

Addresses = Mapping[str, int]


@dataclass(frozen=True)
class ProgramKey:
    """What a program is for: steps of a kind (`encode`, `decode`, ..) on an image of 1 or 3 channels.

    `host_coder`: whether the host codes symbols.
    """

    kind: Kind
    height: int
    width: int
    channels: int
    host_coder: bool


@dataclass(frozen=True)
class GraphRun:
    """Runs an execution on tensors."""

    role: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    execution: Execution

    @property
    def uses(self) -> tuple[str, ...]:
        """Tensors that it reads or writes."""
        return (*self.inputs, *self.writes)

    @property
    def writes(self) -> tuple[str, ...]:
        """Tensors that it writes."""
        return (*self.outputs, self.scratch)

    @property
    def scratch(self) -> str:
        """The name of its scratch memory."""
        return f"{self.role}.scratch"


@dataclass(frozen=True)
class Kernel:
    """Launches a kernel once addresses are known. It is taken to write all tensors that it uses."""

    name: str
    uses: tuple[str, ...]
    launch: Callable[[Addresses], Launch]

    @property
    def writes(self) -> tuple[str, ...]:
        """The tensors."""
        return self.uses


@dataclass(frozen=True)
class Copy:
    """Copies `size` bytes of a tensor from `begin` on; the staging memory has it by the same name."""

    name: str
    size: int
    up: bool
    begin: int = 0

    @property
    def uses(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.name,)

    @property
    def writes(self) -> tuple[str, ...]:
        """The tensor, on the way up."""
        return (self.name,) if self.up else ()


@dataclass(frozen=True)
class Clear:
    """Fills the first `size` bytes of a tensor with zeros."""

    name: str
    size: int

    @property
    def uses(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.name,)

    @property
    def writes(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.name,)


NOT_FINITE = "not_finite"
"""A tensor, uint32: not 0 at the end if what was to be quantised or drawn was infinite or NaN."""
PAYLOAD_ROOM, PAYLOAD_FETCHED = 1, 1 / 4
"""Bytes of payload per element of a latent that are copied up and down whatever its size is. With 0.75 elements a pixel
they make 6 and 1.5 bits a pixel: what a payload has beyond comes down later, and goes up another way."""
PIECE = 1 << 22
"""Bytes of a tensor that is kept which are fetched at a time."""

Operation = GraphRun | Kernel | Copy | Clear


@dataclass(frozen=True)
class Strand:
    """Operations one after the other."""

    operations: tuple[Operation, ...]

    def needs(self, earlier: Strand) -> bool:
        """Whether it has to come after a strand that is before it in a program."""
        uses, writes = self._tensors()
        used, written = earlier._tensors()
        return not (writes.isdisjoint(used) and uses.isdisjoint(written))

    def _tensors(self) -> tuple[set[str], set[str]]:
        """Those that it uses, and those among them that it writes."""
        uses = {name for x in self.operations for name in x.uses}
        return uses, {name for x in self.operations for name in x.writes}


@dataclass(frozen=True)
class Rows:
    """The tables that have a row per level, side by side: float32 [64, n], and offsets in a row, in bytes."""

    levels: npt.NDArray[np.float32]
    offsets: Mapping[str, int]

    @classmethod
    def of(cls, tables: Mapping[str, npt.NDArray[Any]]) -> Rows:
        """Those of a bundle."""
        offsets, parts, end = {}, [], 0
        for name in sorted(tables):
            if is_quality_table(name) or is_first_table(name):
                padding = -tables[name].shape[1] % (ALIGNMENT // 4)
                parts.append(np.pad(tables[name].astype(np.float32), ((0, 0), (0, padding))))
                offsets[name] = end
                end += 4 * parts[-1].shape[1]
        return cls(np.concatenate(parts, axis=1), offsets)


@dataclass(frozen=True)
class ChunkSite:
    """A chunk: its latent, its number there and among all, and its elements among those of the latent."""

    latent: str
    number: int
    ordinal: int
    begin: int
    size: int


@dataclass(frozen=True)
class LatentSite:
    """A latent's tensors: of all elements, in coding order, `symbols` (int16) and `indexes` (uint8), and the chunks'
    `results` and `scans`, one behind the other.

    Where the device codes, `payload` (uint8, see `PAYLOAD_ROOM`) is the coder's, `coder` its state, and `size`, when
    decoding, the payload's, uint32.
    """

    name: str
    shape: tuple[int, int, int]
    chunks: tuple[ChunkSite, ...]

    @property
    def elements(self) -> int:
        """Of all chunks."""
        return sum(chunk.size for chunk in self.chunks)

    @property
    def results_bytes(self) -> int:
        """Of all chunks."""
        return RESULT.itemsize * len(self.chunks)

    @property
    def payload_room(self) -> int:
        """Bytes of payload that are copied up whatever its size is."""
        return 1024 + PAYLOAD_ROOM * self.elements

    @property
    def payload_fetched(self) -> int:
        """Bytes of payload that are copied down whatever its size is."""
        return 1024 + int(PAYLOAD_FETCHED * self.elements)

    def tensor(self, what: str) -> str:
        """The name of a tensor of the latent."""
        return f"{self.name}.{what}"


@dataclass(frozen=True)
class Segment:
    """Strands, and the chunk whose symbols the host decodes once they are done."""

    strands: tuple[Strand, ...]
    then: ChunkSite | None = None

    @property
    def operations(self) -> list[Operation]:
        """All, in an order in which they can run one after the other."""
        return [x for strand in self.strands for x in strand.operations]


@dataclass
class Program:
    """Segments, the sizes of tensors in bytes, and what the host needs to know.

    `size` is that of the padded image, `image` the shape of tensor `pixels`, uint8, `rows` what tensor `rows` holds.
    Tensors that are `kept` are still there at the end, for who wants them: latents, or payloads that were coded.
    """

    size: Size
    image: tuple[int, int, int]
    rows: Rows
    segments: list[Segment] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    latents: list[LatentSite] = field(default_factory=list)

    def executions(self) -> list[Execution]:
        """Of all graphs, to be closed."""
        return [x.execution for segment in self.segments for x in segment.operations if isinstance(x, GraphRun)]

    def tensors(self, operation: Operation) -> tuple[str, ...]:
        """Those that an operation uses; rows of tables are part of one."""
        return tuple("rows" if name in self.rows.offsets else name for name in operation.uses)

    def staged(self) -> dict[str, int]:
        """Tensors that are copied, and how much of them at a time."""
        copies = [x for segment in self.segments for x in segment.operations if isinstance(x, Copy)]
        copied = {x.name: max(y.begin + y.size for y in copies if y.name == x.name) for x in copies}
        return {name: min(self.sizes[name], PIECE) for name in self.kept} | copied
