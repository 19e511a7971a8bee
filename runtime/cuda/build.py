"""Programs from manifests: step by step, in order, with the kernels between the graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from condic.errors import SizeError
from condic.kernels import device
from condic.kernels.device import (
    DECODER,
    RESULT,
    ChunkLayout,
    DecodeTargets,
    DeviceTables,
    Launch,
    Prediction,
    StreamLayout,
)
from condic.kernels.device.chunks import MAX_BOXES
from condic.kernels.device.rans import MAX_CHUNKS
from condic.runtime.cuda.graph import DeviceGraph, bytes_of
from condic.runtime.cuda.program import (
    NOT_FINITE,
    Addresses,
    ChunkSite,
    Clear,
    Copy,
    GraphRun,
    Kernel,
    LatentSite,
    Operation,
    Program,
    ProgramKey,
    Rows,
    Segment,
    Strand,
)  # fmt: skip
from condic.runtime.manifest import Latent, Manifest, TensorSpec

Load = Callable[[str], DeviceGraph]
ENCODER_HEAD = 8
"""Bytes of an `ENCODER`: its error and size."""
_MOST_PIXELS = 2**28
"""Of an image, padded: kernels count in 31 bits, the coder four times the elements of a latent."""


def runs_on_a_device(manifest: Manifest) -> bool:
    """Whether programs can be made of a codec: guarded latents are rounded on the host."""
    return not manifest.guarded and all(
        len(chunk.boxes) <= MAX_BOXES for latent in manifest.latents for chunk in latent.chunks
    )


def codes_on_a_device(manifest: Manifest) -> bool:
    """Whether the device can do the entropy coding too."""
    return all(len(latent.chunks) <= MAX_CHUNKS for latent in manifest.latents)


def build_program(manifest: Manifest, rows: Rows, coder: DeviceTables | None, load: Load, key: ProgramKey) -> Program:
    """The program for a key; `load` gives graphs by role, `coder` is the device's where it is to code.

    Raises SizeError for an image that is too large for kernels or graphs, and other BackendErrors.
    """
    return _Build(manifest, rows, coder, load, key).program


class _Build:
    """A program while it is made: step by step, in order."""

    def __init__(self, manifest: Manifest, rows: Rows, coder: DeviceTables | None, load: Load, key: ProgramKey) -> None:
        self._manifest, self._load, self._coder = manifest, load, None if key.host_coder else coder
        size = manifest.padded(key.height, key.width)
        if size[0] * size[1] > _MOST_PIXELS:
            raise SizeError(f"{size[1]}x{size[0]} pixels are more than the kernels count")
        self._encoding = key.kind == "encode"
        steps = manifest.steps(key.kind)
        spec = TensorSpec("image", 3, 1) if self._encoding else manifest.image_spec(steps)
        image = (-(-key.height // spec.stride), -(-key.width // spec.stride), key.channels)
        self.program = Program(size, image, rows)
        self._strands: list[Strand] = []
        self._operations: list[Operation] = []
        """Of the strand that is being made."""
        self._read = {name for step in steps for name in step.inputs} | {
            name for latent in manifest.latents for chunk in latent.chunks for name in chunk.inputs
        }
        try:
            self._begin(spec)
            for step in steps:
                self._next_strand()
                if step.op == "run":
                    self._run(step.target, step.inputs, step.outputs)
                else:
                    self._code(manifest.latent(step.target))
            self._next_strand()
            self._end(spec)
        except BaseException:
            self._cut(None)
            for execution in self.program.executions():
                execution.close()
            raise

    def _begin(self, spec: TensorSpec) -> None:
        self._upload("rows", self.program.rows.levels[0].nbytes)
        self._clear(NOT_FINITE, 4)
        if self._encoding:
            self._upload("pixels", int(np.prod(self.program.image)))
            self._tensor("image", bytes_of(spec, self.program.size))
            self._kernel("pixels", ("pixels", "image"), lambda at: device.pixels_to_tensor(
                at["pixels"], self.program.image, at["image"], self.program.size
            ))  # fmt: skip

    def _run(self, role: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        graph = self._load(role)
        operation = GraphRun(role, inputs, outputs, graph.prepare(self.program.size))
        self._operations.append(operation)
        self._tensor(operation.scratch, operation.execution.scratch)
        for name, spec in zip(outputs, graph.graph.outputs, strict=True):
            self._tensor(name, bytes_of(spec, self.program.size))

    def _code(self, latent: Latent) -> None:
        rows, columns = (side // latent.stride for side in self.program.size)
        shape, scales = (latent.channels, rows, columns), self._manifest.scales
        layouts = []
        for chunk in latent.chunks:
            boxes = tuple(box.on(rows, columns) for box in chunk.boxes)
            layouts.append(
                ChunkLayout(shape, boxes, scales, latent.first_coded, latent.context_shift, latent.context_limit)
            )
        sizes = [layout.size for layout in layouts]
        begun = sum(len(x.chunks) for x in self.program.latents)
        site = LatentSite(latent.name, shape, tuple(
            ChunkSite(latent.name, k, begun + k, sum(sizes[:k]), size) for k, size in enumerate(sizes)
        ))  # fmt: skip
        self.program.latents.append(site)
        self._clear(site.tensor("results"), site.results_bytes)
        self._tensor(site.tensor("symbols"), 2 * site.elements)
        self._tensor(site.tensor("indexes"), site.elements)
        if self._encoding:
            self._encode(latent, site, layouts)
        else:
            self._decode(latent, site, layouts)
        self._download(site.tensor("results"), site.results_bytes)

    def _encode(self, latent: Latent, site: LatentSite, layouts: Sequence[ChunkLayout]) -> None:
        for work in self._works(latent, site, layouts, ("context", "hat")):
            self._kernel("encode_chunk", (*work.uses, site.tensor("y"), NOT_FINITE), work.encode)
        self._next_strand()  # its few warps take as long as many graphs do
        if self._coder:
            self._pack(site, self._coder)
        else:
            self._download(site.tensor("symbols"), 2 * site.elements)
            self._download(site.tensor("indexes"), site.elements)

    def _decode(self, latent: Latent, site: LatentSite, layouts: Sequence[ChunkLayout]) -> None:
        payload, size, coder = (site.tensor(what) for what in ("payload", "size", "coder"))
        self.program.kept.append(site.tensor("latents"))
        if self._coder:
            self._upload(payload, site.payload_room)
            self._upload(size, 4)
            self._tensor(coder, DECODER.itemsize)
            self._kernel(
                "rans_open", (payload, size, coder), lambda at: device.rans_open(at[payload], at[size], at[coder])
            )
        self._next_strand()
        for work in self._works(latent, site, layouts, ("context", "hat", "latents")):
            self._kernel("chunk_indexes", work.uses, work.find_indexes)
            if self._coder:
                self._pop(work, self._coder, (*work.uses, coder, payload))
            else:
                self._pop_on_host(work)
        self._next_strand()  # who reads the latent need not wait for what is known of it
        if self._coder:
            self._kernel("rans_close", (coder,), lambda at: device.rans_close(at[coder]))
            self._download(coder, 4)

    def _works(
        self, latent: Latent, site: LatentSite, layouts: Sequence[ChunkLayout], targets: Sequence[str]
    ) -> Iterator[_ChunkWork]:
        """The chunks in order, each once its distribution is there. `context` and `hat` are left out if unread."""
        wanted = tuple(site.tensor(what) for what in targets if what == "latents" or site.tensor(what) in self._read)
        read_in_parts = {name for chunk in latent.chunks for name in chunk.inputs}
        for name in wanted:  # each of their elements is in one chunk
            (self._clear if name in read_in_parts else self._tensor)(name, 4 * int(np.prod(site.shape)))
        scans = [layout.scan_bytes for layout in layouts]
        self._clear(site.tensor("scans"), sum(scans))  # at once: between chunks everything waits
        for layout, place, chunk in zip(layouts, site.chunks, latent.chunks, strict=True):
            if chunk.graph is not None:
                source = site.tensor(f"{place.number}.distribution")
                self._run(chunk.graph, chunk.inputs, (source,))
            else:
                assert chunk.table is not None
                source = chunk.table
            scan_begin = sum(scans[: place.number])
            yield _ChunkWork(site, place, layout, source, chunk.graph is None, scan_begin, wanted)

    def _pop(self, work: _ChunkWork, tables: DeviceTables, uses: tuple[str, ...]) -> None:
        """The device decodes a chunk's symbols."""
        coder = work.latent.tensor("coder")
        self._kernel("rans_pop", uses, lambda at: device.rans_pop(
            tables, at[coder], indexes=work.indexes(at), result=work.result(at), symbols=work.symbols(at)
        ))  # fmt: skip
        self._kernel("decode_chunk", uses, lambda at: work.decode(at, at[coder]))

    def _pop_on_host(self, work: _ChunkWork) -> None:
        """The host decodes them: the program stops there."""
        site, place = work.latent, work.place
        self._operations += [
            Copy(site.tensor("indexes"), place.size, up=False, begin=place.begin),
            Copy(site.tensor("results"), site.results_bytes, up=False),
        ]
        self._cut(place)
        self._operations.append(Copy(site.tensor("symbols"), 2 * place.size, up=True, begin=2 * place.begin))
        self._kernel("decode_chunk", work.uses, work.decode)

    def _pack(self, site: LatentSite, tables: DeviceTables) -> None:
        """The device encodes a latent's symbols."""
        symbols, indexes, results = (site.tensor(what) for what in ("symbols", "indexes", "results"))
        payload, coder = site.tensor("payload"), site.tensor("coder")
        stream = StreamLayout(tuple(chunk.size for chunk in site.chunks))
        self._clear(coder, stream.zero_bytes)
        self._tensor(coder, stream.workspace_bytes)
        self._tensor(payload, stream.payload_bytes)
        self.program.kept.append(payload)

        def launches(at: Addresses) -> tuple[Launch, ...]:
            return stream.encode(
                tables, symbols=at[symbols], indexes=at[indexes], results=at[results], workspace=at[coder],
                payload=at[payload],
            )  # fmt: skip

        for k, name in enumerate(("rans_resolve", "rans_push", "rans_pack")):
            uses = (symbols, indexes, results, coder, payload)
            self._kernel(name, uses, lambda at, k=k: launches(at)[k])  # type: ignore[misc]
        self._download(coder, ENCODER_HEAD)
        self._download(payload, min(site.payload_fetched, stream.payload_bytes))

    def _end(self, spec: TensorSpec) -> None:
        if not self._encoding:
            rows, columns = (side // spec.stride for side in self.program.size)
            self._tensor("pixels", int(np.prod(self.program.image)))
            self._kernel("pixels", ("image", "pixels", NOT_FINITE), lambda at: device.tensor_to_pixels(
                at["image"], (rows, columns), at["pixels"], self.program.image, not_finite=at[NOT_FINITE]
            ))  # fmt: skip
            self._download("pixels", int(np.prod(self.program.image)))
        self._download(NOT_FINITE, 4)
        self._cut(None)

    def _next_strand(self) -> None:
        """What comes now needs not wait for what has come, but for tensors."""
        self._strands.append(Strand(tuple(self._operations)))
        self._operations = []

    def _cut(self, then: ChunkSite | None) -> None:
        self._next_strand()
        self.program.segments.append(Segment(tuple(self._strands), then))
        self._strands = []

    def _tensor(self, name: str, size: int) -> None:
        self.program.sizes[name] = max(self.program.sizes.get(name, 0), size)

    def _upload(self, name: str, size: int) -> None:
        self._tensor(name, size)
        self._operations.append(Copy(name, size, up=True))

    def _download(self, name: str, size: int) -> None:
        self._tensor(name, size)
        self._operations.append(Copy(name, size, up=False))

    def _clear(self, name: str, size: int) -> None:
        self._tensor(name, -(-size // 4) * 4)
        self._operations.append(Clear(name, -(-size // 4) * 4))

    def _kernel(self, name: str, uses: tuple[str, ...], launch: Callable[[Addresses], Launch]) -> None:
        self._operations.append(Kernel(name, uses, launch))


@dataclass(frozen=True)
class _ChunkWork:
    """Launches of a chunk. `source` is where its distribution is, a table's row if `is_row`, `scan_begin` where in the
    latent's `scans` its own is."""

    latent: LatentSite
    place: ChunkSite
    chunk: ChunkLayout
    source: str
    is_row: bool
    scan_begin: int
    decoded: tuple[str, ...]

    @property
    def uses(self) -> tuple[str, ...]:
        return (
            self.source, *map(self.latent.tensor, ("scans", "results", "symbols", "indexes")), *self.decoded,
        )  # fmt: skip

    def symbols(self, at: Addresses) -> int:
        return at[self.latent.tensor("symbols")] + 2 * self.place.begin

    def indexes(self, at: Addresses) -> int:
        return at[self.latent.tensor("indexes")] + self.place.begin

    def result(self, at: Addresses) -> int:
        return at[self.latent.tensor("results")] + RESULT.itemsize * self.place.number

    def scan(self, at: Addresses) -> int:
        return at[self.latent.tensor("scans")] + self.scan_begin

    def encode(self, at: Addresses) -> Launch:
        return device.encode_chunk(
            self.chunk, self._prediction(at), at[self.latent.tensor("y")], self._targets(at), symbols=self.symbols(at),
            indexes=self.indexes(at), result=self.result(at), scan=self.scan(at), not_finite=at[NOT_FINITE],
        )  # fmt: skip

    def find_indexes(self, at: Addresses) -> Launch:
        return device.chunk_indexes(
            self.chunk, self._prediction(at), indexes=self.indexes(at), result=self.result(at), scan=self.scan(at)
        )

    def decode(self, at: Addresses, decoder: int = 0) -> Launch:
        return device.decode_chunk(
            self.chunk, self._prediction(at), self._targets(at), symbols=self.symbols(at), result=self.result(at),
            scan=self.scan(at), decoder=decoder,
        )  # fmt: skip

    def _prediction(self, at: Addresses) -> Prediction:
        return Prediction(at[self.source], self.is_row)

    def _targets(self, at: Addresses) -> DecodeTargets:
        names = (self.latent.tensor(what) for what in ("latents", "context", "hat"))
        return DecodeTargets(*(at[name] if name in self.decoded else 0 for name in names))
