"""Images of any size in bounded memory: tensors are computed for a region when someone asks for it.

A `run` step is only noted down; reading a tensor for a region runs the graphs behind it on that region and a halo that
covers their receptive fields. An image within the budget is one region, so there is one way to run a step. Regions lie
on the grid of the alignment (the attention window), so windows are the same in every tiling. Exact graphs run by the
same regions: zero padding at a region's border reaches no further than the halo, which is cut off, so their integers
are the same in every tiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from condic.errors import BundleError
from condic.runtime.arrays import Tensor
from condic.runtime.manifest import Graph, Manifest, Step, TensorSpec
from condic.runtime.timings import Timings

T = TypeVar("T", bound=np.generic)
RunGraph = Callable[[str, Sequence[Tensor]], list[Tensor]]
Source = Callable[["Region"], Tensor]

TILE = 2048
"""Side of a tile in pixels."""
UNTILED_PIXELS = 3840 * 2176
"""Images up to 4K (padded) are one tile; with dcic-sgp's preset s a process takes 0.9 GB for one."""


@dataclass(frozen=True)
class Region:
    """Rows [top, bottom) and columns [left, right) in units of the alignment."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, halo: int, outer: Region) -> Region:
        """This region with `halo` more units on each side, within `outer`."""
        return Region(self.top - halo, self.bottom + halo, self.left - halo, self.right + halo).shared(outer)

    def shared(self, other: Region) -> Region:
        """The part that this region and another one share; they must share something."""
        return Region(
            max(self.top, other.top), min(self.bottom, other.bottom),
            max(self.left, other.left), min(self.right, other.right),
        )  # fmt: skip

    def slices(self, unit: int) -> tuple[slice, slice]:
        """Rows and columns of this region in a tensor with `unit` elements per unit of the alignment."""
        return slice(self.top * unit, self.bottom * unit), slice(self.left * unit, self.right * unit)

    def cut(self, tensor: npt.NDArray[T], spec: TensorSpec, alignment: int, origin: Region) -> npt.NDArray[T]:
        """The part of `tensor`, which covers `origin`, that covers this region; tensors without extent stay whole."""
        if not spec.stride or self == origin:
            return tensor
        moved = Region(
            self.top - origin.top, self.bottom - origin.top, self.left - origin.left, self.right - origin.left
        )
        rows, columns = moved.slices(alignment // spec.stride)
        return np.ascontiguousarray(tensor[:, :, rows, columns])


class Evaluation:
    """The tensors of one image: `sources` that give those which exist, and steps that make others on demand."""

    def __init__(
        self,
        manifest: Manifest,
        run: RunGraph,
        height: int,
        width: int,
        tile: int | None = None,
        timings: Timings | None = None,
    ) -> None:
        """`height` and `width` are padded to the alignment; `tile` overrides the side of a tile in pixels.

        A codec that is not `tiled` has one tile, whatever the size.
        """
        self._manifest, self._run, self.timings = manifest, run, timings or Timings()
        self.alignment = unit = manifest.alignment
        self.whole = Region(0, height // unit, 0, width // unit)
        untiled = not manifest.tiled or (tile is None and height * width <= UNTILED_PIXELS)
        self._tile = max(self.whole.bottom, self.whole.right) if untiled else max(1, (tile or TILE) // unit)
        self.sources: dict[str, Source] = {}
        """Tensors that are not made by steps: the image when encoding, rows of quality tables, latents being coded."""
        self._steps: dict[str, Step] = {}
        self._read: set[str] = set()
        """Inputs of the steps so far: a step's other outputs, such as the preview when encoding, are let go at once."""
        self.kept: dict[str, npt.NDArray[Any]] = {}
        """Whole tensors, see `keep`."""

    def give(self, name: str, values: Tensor) -> None:
        """A tensor without extent, such as a row of a table, float32 [1, C, 1, 1]."""
        self.sources[name] = lambda _: values

    def note(self, step: Step) -> None:
        """Remembers a `run` step as the way to its outputs."""
        self._read.update(step.inputs)
        for name in step.outputs:
            self._steps[name] = step

    def tiles(self, within: Region) -> Iterator[Region]:
        """The whole image's tiles, uncut, that share something with a region, row by row."""
        side = self._tile
        for top in range(within.top // side * side, within.bottom, side):
            for left in range(within.left // side * side, within.right, side):
                yield Region(top, top + side, left, left + side).shared(self.whole)

    @property
    def size(self) -> tuple[int, int]:
        """Padded height and width in pixels."""
        return self.whole.bottom * self._manifest.alignment, self.whole.right * self._manifest.alignment

    def keep(self, name: str) -> npt.NDArray[Any]:
        """A step's output over the whole image, [1, C, h, w], computed when first asked for, and kept (see `assemble`).

        With an output of a guarded graph all others of it are kept, since later steps read them as well.
        """
        if name not in self.kept:
            step = self._steps[name]
            guarded = self._manifest.graph(step.target).precision == "guarded"
            self.kept |= self.assemble(step, step.outputs if guarded else (name,))
        return self.kept[name]

    def assemble(self, step: Step, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Outputs of a step over the whole image, computed tile by tile; of a single tile they are what the graph gave.

        Float graphs' as float32, exact graphs', which are integers of 16 bits, as int16 (BundleError if they are not).
        """
        graph = self._manifest.graph(step.target)
        exact = graph.precision == "exact"
        specs = dict(zip(step.outputs, graph.outputs, strict=True))
        whole: dict[str, npt.NDArray[Any]] = {}
        for tile in self.tiles(self.whole):
            parts = self.run(step, tile)
            for name in names:
                with self.timings.stage("copies"):
                    part = _as_int16(parts[name], graph.role) if exact else parts[name]
                    if tile == self.whole or not specs[name].stride:
                        whole[name] = part
                        continue
                    unit = self._unit(specs[name])
                    if name not in whole:
                        shape = (1, specs[name].channels, self.whole.bottom * unit, self.whole.right * unit)
                        whole[name] = np.empty(shape, part.dtype)
                    rows, columns = tile.slices(unit)
                    whole[name][:, :, rows, columns] = part
        return whole

    def get(self, name: str, spec: TensorSpec, region: Region) -> Tensor:
        """A tensor over a region, float32 [1, C, h, w]; `spec` says its stride. Raises what running graphs raises."""
        return self._get(name, spec, region, {})

    def run(self, step: Step, region: Region) -> Mapping[str, Tensor]:
        """The outputs of a step over a region, float32 [1, C, h, w] by name. Raises what running graphs raises."""
        self._read.update(step.inputs)
        return self._run_step(step, region, {}, step.outputs)

    def _unit(self, spec: TensorSpec) -> int:
        return self._manifest.alignment // spec.stride

    def _get(self, name: str, spec: TensorSpec, region: Region, memo: _Memo) -> Tensor:
        if name in self.sources:
            return self.sources[name](region)
        step = self._steps[name]
        if is_kept_whole(name, self._manifest.graph(step.target)):
            whole = self.keep(name)
            with self.timings.stage("copies"):
                part = region.cut(whole, spec, self._manifest.alignment, self.whole)
                return np.asarray(part, np.float32)
        return self._run_step(step, region, memo, (name,))[name]

    def _run_step(self, step: Step, region: Region, memo: _Memo, wanted: Sequence[str]) -> Mapping[str, Tensor]:
        """A step's outputs over a region that are wanted or read; `memo` spares running it twice for the same one."""
        key = (step, region)
        if key not in memo:
            graph = self._manifest.graph(step.target)
            outer = region.grown(graph.halo, self.whole)
            inputs = [self._get(n, spec, outer, memo) for n, spec in zip(step.inputs, graph.inputs, strict=True)]
            outputs = zip(step.outputs, graph.outputs, self._run(step.target, inputs), strict=True)
            alignment = self._manifest.alignment
            with self.timings.stage("copies"):
                memo[key] = {
                    name: region.cut(value, spec, alignment, outer)
                    for name, spec, value in outputs
                    if name in wanted or name in self._read
                }
        return memo[key]


def is_kept_whole(name: str, graph: Graph) -> bool:
    """Whether a graph's output is computed once for the whole image, not for each region that asks for it.

    Latents to code are, and what graphs of the entropy path make: they are small, and read often.
    """
    return name.endswith(".y") or graph.precision != "float"


def _as_int16(values: Tensor, role: str) -> npt.NDArray[np.int16]:
    """What an exact graph gave. Raises BundleError where it is more than integers of 16 bits."""
    with np.errstate(invalid="ignore"):
        integers = values.astype(np.int16)
    if not np.array_equal(integers, values):
        raise BundleError(f"graph {role} is called exact but gives more than 16-bit integers")
    return integers


_Memo = dict[tuple[Step, Region], Mapping[str, Tensor]]
