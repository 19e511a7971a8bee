"""A bundle's step list as operations on named device tensors, for one size of image.

A program is cut into segments. Between two of them the host waits once and does its part: nothing when encoding, where
there is one segment; when decoding, it decodes a chunk's symbols with the tables that the device has found for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.kernels import device
from condic.kernels.device import RESULT, Chunk, Decoded, Launch, Prediction
from condic.kernels.device.chunks import MAX_BOXES
from condic.runtime.cuda.arena import ALIGNMENT
from condic.runtime.cuda.graph import DeviceGraph, Execution, Size, bytes_of
from condic.runtime.latents import strided_box
from condic.runtime.manifest import Latent, Manifest, Step, TensorSpec

Addresses = Mapping[str, int]
Load = Callable[[str], DeviceGraph]


@dataclass(frozen=True)
class Format:
    """What a program is for: steps of a kind (`encode`, `decode`, ..) on an image of 1 or 3 channels."""

    kind: str
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Graph:
    """Runs an execution on tensors."""

    role: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    execution: Execution

    @property
    def uses(self) -> tuple[str, ...]:
        """Tensors that it reads or writes."""
        return (*self.inputs, *self.outputs, self.scratch)

    @property
    def scratch(self) -> str:
        """The name of its scratch memory."""
        return f"{self.role}.scratch"


@dataclass(frozen=True)
class Kernel:
    """Launches a kernel once addresses are known."""

    name: str
    uses: tuple[str, ...]
    launch: Callable[[Addresses], Launch]


@dataclass(frozen=True)
class Copy:
    """Copies a tensor from or to the staging memory, where it has the same name."""

    name: str
    up: bool

    @property
    def uses(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.name,)


@dataclass(frozen=True)
class Clear:
    """Fills a tensor with zeros."""

    name: str

    @property
    def uses(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.name,)


Operation = Graph | Kernel | Copy | Clear


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
            if name.startswith(("quality.", "first.")):
                padding = -tables[name].shape[1] % (ALIGNMENT // 4)
                parts.append(np.pad(tables[name].astype(np.float32), ((0, 0), (0, padding))))
                offsets[name] = end
                end += 4 * parts[-1].shape[1]
        return cls(np.concatenate(parts, axis=1), offsets)


@dataclass(frozen=True)
class ChunkSite:
    """A chunk within a program: latent, number in it, number in the program, and the names of its tensors."""

    latent: str
    number: int
    ordinal: int
    size: int

    @property
    def symbols(self) -> str:
        """int16 [size]."""
        return f"{self.latent}.{self.number}.symbols"

    @property
    def indexes(self) -> str:
        """uint8 [size]."""
        return f"{self.latent}.{self.number}.indexes"


@dataclass(frozen=True)
class Segment:
    """Operations, and the chunk whose symbols the host decodes once they are done."""

    operations: tuple[Operation, ...]
    then: ChunkSite | None = None


@dataclass
class Program:
    """Segments, the sizes of tensors in bytes, and what the host needs to know.

    `size` is that of the padded image, `image` the shape of tensor `pixels`, uint8, `rows` what tensor `rows` holds.
    `last` are operations that fetch the latents, for who wants them.
    """

    size: Size
    image: tuple[int, int, int]
    rows: Rows
    segments: list[Segment] = field(default_factory=list)
    last: tuple[Operation, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    sites: list[ChunkSite] = field(default_factory=list)
    latents: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def executions(self) -> list[Execution]:
        """Of all graphs, to be closed."""
        return [x.execution for segment in self.segments for x in segment.operations if isinstance(x, Graph)]

    def uses(self) -> list[tuple[str, ...]]:
        """Tensors per operation, in order; rows of tables are part of one tensor."""
        operations = [x for segment in self.segments for x in segment.operations] + list(self.last)
        return [tuple("rows" if name in self.rows.offsets else name for name in x.uses) for x in operations]

    def staged(self) -> list[str]:
        """Tensors that are copied."""
        operations = [x for segment in self.segments for x in segment.operations] + list(self.last)
        return list(dict.fromkeys(x.name for x in operations if isinstance(x, Copy)))


def runs_on_a_device(manifest: Manifest) -> bool:
    """Whether programs can be made of a codec: guarded latents are rounded on the host."""
    return not manifest.guarded and all(
        len(chunk.boxes) <= MAX_BOXES for latent in manifest.latents for chunk in latent.chunks
    )


def build_program(manifest: Manifest, rows: Rows, load: Load, format: Format) -> Program:
    """The program for a format; `load` gives graphs by role. Raises BackendError where one does not take the size."""
    return _Build(manifest, rows, load, format).program


class _Build:
    """A program while it is made: step by step, in order."""

    def __init__(self, manifest: Manifest, rows: Rows, load: Load, format: Format) -> None:
        self._manifest, self._load = manifest, load
        unit = manifest.alignment
        size = tuple(side + -side % unit for side in (format.height, format.width))
        self._encoding = format.kind == "encode"
        steps: tuple[Step, ...] = getattr(manifest, format.kind)
        spec = TensorSpec("image", 3, 1) if self._encoding else manifest.image_spec(steps)
        image = (-(-format.height // spec.stride), -(-format.width // spec.stride), format.channels)
        self.program = Program((size[0], size[1]), image, rows)
        self._operations: list[Operation] = []
        self._read = {name for step in steps for name in step.inputs} | {
            name for latent in manifest.latents for chunk in latent.chunks for name in chunk.inputs
        }
        try:
            self._begin(steps, spec)
            for step in steps:
                if step.op == "run":
                    self._run(step.target, step.inputs, step.outputs)
                else:
                    self._code(manifest.latent(step.target))
            self._end(spec)
        except BaseException:
            self._cut(None)
            for execution in self.program.executions():
                execution.close()
            raise

    def _begin(self, steps: Sequence[Step], spec: TensorSpec) -> None:
        chunks = [chunk for s in steps if s.op == "code" for chunk in self._manifest.latent(s.target).chunks]
        self._upload("rows", self.program.rows.levels[0].nbytes)
        self._clear("results", RESULT.itemsize * len(chunks))
        if self._encoding:
            self._upload("pixels", int(np.prod(self.program.image)))
            self._tensor("image", bytes_of(spec, self.program.size))
            self._kernel("pixels", ("pixels", "image"), lambda at: device.pixels_to_tensor(
                at["pixels"], self.program.image, at["image"], self.program.size
            ))  # fmt: skip

    def _run(self, role: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        graph = self._load(role)
        operation = Graph(role, inputs, outputs, graph.prepare(self.program.size))
        self._operations.append(operation)
        self._tensor(operation.scratch, operation.execution.scratch)
        for name, spec in zip(outputs, graph.graph.outputs, strict=True):
            self._tensor(name, bytes_of(spec, self.program.size))

    def _code(self, latent: Latent) -> None:
        rows, columns = (side // latent.stride for side in self.program.size)
        shape = latent.channels, rows, columns
        decoded = [f"{latent.name}.{what}" for what in ("context", "hat")]
        decoded = [name for name in decoded if name in self._read]
        if not self._encoding:
            decoded.append(f"{latent.name}.latents")
            self.program.latents[latent.name] = shape
        for name in decoded:
            self._clear(name, 4 * int(np.prod(shape)))
        for number, each in enumerate(latent.chunks):
            boxes = tuple(strided_box(box, rows, columns) for box in each.boxes)
            chunk = Chunk(
                shape, boxes, self._manifest.scales, latent.first_coded, latent.context_shift, latent.context_limit
            )
            site = ChunkSite(latent.name, number, len(self.program.sites), chunk.size)
            self.program.sites.append(site)
            if each.graph is not None:
                source = f"{latent.name}.{number}.distribution"
                self._run(each.graph, each.inputs, (source,))
            else:
                assert each.table is not None
                source = each.table
            self._code_chunk(latent, site, chunk, source, is_row=each.graph is None, decoded=tuple(decoded))

    def _code_chunk(
        self, latent: Latent, site: ChunkSite, chunk: Chunk, source: str, *, is_row: bool, decoded: tuple[str, ...]
    ) -> None:
        scan = f"{latent.name}.{site.number}.scan"
        self._clear(scan, chunk.scan_bytes)
        self._tensor(site.symbols, 2 * chunk.size)
        self._tensor(site.indexes, chunk.size)
        uses = (source, scan, "results", site.symbols, site.indexes, *decoded)

        def places(at: Addresses) -> Decoded:
            names = (f"{latent.name}.{what}" for what in ("latents", "context", "hat"))
            return Decoded(*(at[name] if name in decoded else 0 for name in names))

        def common(at: Addresses) -> dict[str, int]:
            return {"result": at["results"] + RESULT.itemsize * site.ordinal, "scan": at[scan]}

        if self._encoding:
            y = f"{latent.name}.y"
            self._kernel("encode_chunk", (*uses, y), lambda at: device.encode_chunk(
                chunk, Prediction(at[source], is_row), at[y], places(at), symbols=at[site.symbols],
                indexes=at[site.indexes], **common(at),
            ))  # fmt: skip
            return
        self._kernel("chunk_indexes", uses, lambda at: device.chunk_indexes(
            chunk, Prediction(at[source], is_row), indexes=at[site.indexes], **common(at)
        ))  # fmt: skip
        self._operations += [Copy(site.indexes, up=False), Copy("results", up=False)]
        self._cut(site)
        self._operations.append(Copy(site.symbols, up=True))
        self._kernel("decode_chunk", uses, lambda at: device.decode_chunk(
            chunk, Prediction(at[source], is_row), places(at), symbols=at[site.symbols], **common(at)
        ))  # fmt: skip

    def _end(self, spec: TensorSpec) -> None:
        self._operations.append(Copy("results", up=False))
        if self._encoding:
            for site in self.program.sites:
                self._operations += [Copy(site.symbols, up=False), Copy(site.indexes, up=False)]
        else:
            rows, columns = (side // spec.stride for side in self.program.size)
            self._tensor("pixels", int(np.prod(self.program.image)))
            self._kernel("pixels", ("image", "pixels"), lambda at: device.tensor_to_pixels(
                at["image"], (rows, columns), at["pixels"], self.program.image
            ))  # fmt: skip
            self._operations.append(Copy("pixels", up=False))
        self._cut(None)
        self.program.last = tuple(Copy(f"{name}.latents", up=False) for name in self.program.latents)

    def _cut(self, then: ChunkSite | None) -> None:
        self.program.segments.append(Segment(tuple(self._operations), then))
        self._operations = []

    def _tensor(self, name: str, size: int) -> None:
        self.program.sizes[name] = max(self.program.sizes.get(name, 0), size)

    def _upload(self, name: str, size: int) -> None:
        self._tensor(name, size)
        self._operations.append(Copy(name, up=True))

    def _clear(self, name: str, size: int) -> None:
        self._tensor(name, -(-size // 4) * 4)
        self._operations.append(Clear(name))

    def _kernel(self, name: str, uses: tuple[str, ...], launch: Callable[[Addresses], Launch]) -> None:
        self._operations.append(Kernel(name, uses, launch))
