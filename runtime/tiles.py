"""Float graphs on images of any size in bounded memory: tensors are computed for a region when someone asks for it.

A `run` step is only noted down; reading a tensor for a region runs the graphs behind it on that region and a halo that
covers their receptive fields. An image within the budget is one region, so there is one way to run a step. Regions lie
on the grid of the alignment (the attention window), so windows are the same in every tiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from condic.runtime.manifest import Manifest, Step, TensorSpec
from condic.runtime.timings import Timings

T = TypeVar("T", bound=np.generic)
Tensor = npt.NDArray[np.float32]
RunGraph = Callable[[str, Sequence[Tensor]], list[Tensor]]

TILE = 2048
"""Side of a tile in pixels."""
UNTILED_PIXELS = 3840 * 2176
"""Images up to 4K (padded) are one tile; with preset s they take 1.0 GB to encode and 1.5 GB to decode."""


@dataclass(frozen=True)
class Region:
    """Rows [top, bottom) and columns [left, right) in units of the alignment."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, halo: int, outer: Region) -> Region:
        """This region with `halo` more units on each side, within `outer`."""
        return Region(
            max(self.top - halo, outer.top),
            min(self.bottom + halo, outer.bottom),
            max(self.left - halo, outer.left),
            min(self.right + halo, outer.right),
        )

    def cut(self, tensor: npt.NDArray[T], spec: TensorSpec, alignment: int, origin: Region) -> npt.NDArray[T]:
        """The part of `tensor`, which covers `origin`, that covers this region; tensors without extent stay whole."""
        if not spec.stride or self == origin:
            return tensor
        unit = alignment // spec.stride
        rows = slice((self.top - origin.top) * unit, (self.bottom - origin.top) * unit)
        columns = slice((self.left - origin.left) * unit, (self.right - origin.left) * unit)
        return np.ascontiguousarray(tensor[:, :, rows, columns])


class Evaluation:
    """The tensors of one image: those that are whole (latents, tables), and steps that make others on demand."""

    def __init__(
        self,
        manifest: Manifest,
        run: RunGraph,
        height: int,
        width: int,
        tile: int | None = None,
        timings: Timings | None = None,
    ) -> None:
        """`height` and `width` are padded to the alignment; `tile` overrides the side of a tile in pixels."""
        self._manifest, self.run, self.timings = manifest, run, timings or Timings()
        unit = manifest.alignment
        self.whole = Region(0, height // unit, 0, width // unit)
        untiled = tile is None and height * width <= UNTILED_PIXELS
        self._tile = max(self.whole.bottom, self.whole.right) if untiled else max(1, (tile or TILE) // unit)
        self.tensors: dict[str, Tensor] = {}
        self.sixteenths: dict[str, npt.NDArray[np.int32]] = {}
        """Whole tensors kept as int32 in units of 1/16: decoded latents, as float graphs read them."""
        self._steps: dict[str, Step] = {}
        self._kept: set[str] = set()
        self.source: Callable[[Region], Tensor] | None = None
        """Gives the tensor `image` for a region, when encoding."""

    def note(self, step: Step) -> None:
        """Remembers a `run` step as the way to its outputs.

        Latents to code, and what exact graphs make, are kept whole once computed: they are small and read often.
        """
        for name in step.outputs:
            self._steps[name] = step
        exact = self._manifest.graph(step.target).precision == "exact"
        self._kept |= {name for name in step.outputs if exact or name.endswith(".y")}

    def tiles(self, within: Region) -> Iterator[Region]:
        """The tiles that cover a region, row by row, on the grid of the whole image."""
        side = self._tile
        for top in range(within.top // side * side, within.bottom, side):
            for left in range(within.left // side * side, within.right, side):
                yield Region(
                    max(top, within.top), min(top + side, within.bottom),
                    max(left, within.left), min(left + side, within.right),
                )  # fmt: skip

    @property
    def size(self) -> tuple[int, int]:
        """Padded height and width in pixels."""
        return self.whole.bottom * self._manifest.alignment, self.whole.right * self._manifest.alignment

    def get_whole(self, name: str) -> Tensor:
        """A tensor over the whole image, computed when first asked for, and kept."""
        if name not in self.tensors:
            self.tensors[name] = self.compute(self._steps[name], name)
        return self.tensors[name]

    def compute(self, step: Step, name: str) -> Tensor:
        """An output of a step over the whole image, tile by tile."""
        tiles = list(self.tiles(self.whole))
        if len(tiles) == 1:
            return self._run_step(step, self.whole, {})[name]
        graph = self._manifest.graph(step.target)
        spec = graph.outputs[step.outputs.index(name)]
        unit = self._manifest.alignment // spec.stride
        result = np.empty((1, spec.channels, self.whole.bottom * unit, self.whole.right * unit), np.float32)
        for tile in tiles:
            rows, columns = slice(tile.top * unit, tile.bottom * unit), slice(tile.left * unit, tile.right * unit)
            result[:, :, rows, columns] = self._run_step(step, tile, {})[name]
        return result

    def get(self, name: str, spec: TensorSpec, region: Region) -> Tensor:
        """A tensor over a region; `spec` says its stride."""
        return self._get(name, spec, region, {})

    def _get(self, name: str, spec: TensorSpec, region: Region, memo: _Memo) -> Tensor:
        if name == "image" and self.source is not None:
            return self.source(region)
        if name in self.sixteenths:
            with self.timings.stage("copies"):
                integers = region.cut(self.sixteenths[name], spec, self._manifest.alignment, self.whole)
                reals: Tensor = integers.astype(np.float32)
                reals *= np.float32(1 / 16)
            return reals
        if name in self._kept:
            self.get_whole(name)
        if name in self.tensors:
            with self.timings.stage("copies"):
                return region.cut(self.tensors[name], spec, self._manifest.alignment, self.whole)
        return self._run_step(self._steps[name], region, memo)[name]

    def _run_step(self, step: Step, region: Region, memo: _Memo) -> Mapping[str, Tensor]:
        """The outputs of a step over a region; `memo` spares running it twice for the same one."""
        key = (step.target, region)
        if key not in memo:
            graph = self._manifest.graph(step.target)
            outer = region.grown(graph.halo, self.whole)
            inputs = [self._get(n, spec, outer, memo) for n, spec in zip(step.inputs, graph.inputs, strict=True)]
            outputs = zip(step.outputs, graph.outputs, self.run(step.target, inputs), strict=True)
            alignment = self._manifest.alignment
            with self.timings.stage("copies"):
                memo[key] = {name: region.cut(value, spec, alignment, outer) for name, spec, value in outputs}
        return memo[key]


_Memo = dict[tuple[str, Region], Mapping[str, Tensor]]
