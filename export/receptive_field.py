"""How far a graph's outputs reach into its inputs, measured: the halo that tiles need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from condic.errors import InputError
from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceGraph
from condic.runtime.manifest import TensorSpec

_LENGTHS = (5, 11, 23, 47)
"""Windows of the alignment in a row that is tried, one after the other until outputs do not reach its ends."""
_AMPLITUDE = 8
"""Inputs are changed to some that are larger by this: more reaches the next value behind a rounding."""


def halo(source: SourceGraph, alignment: int) -> int:
    """Windows of the alignment on each side of a window that its outputs depend on.

    Measured along a row and a column of windows, long enough that the dependence ends before they do: where the
    gradient of the middle one's outputs is not zero, which tells of the smallest influence; and which outputs change
    when the middle one's inputs do, which sees through what has no gradient, such as a rounding. Raises InputError if
    it does not end.
    """
    return max(_reach(source, alignment, upright) for upright in (False, True))


def _reach(source: SourceGraph, alignment: int, upright: bool) -> int:
    for length in _LENGTHS:
        line = _Line(source, alignment, length, upright)
        reach = max(line.reach_of_gradient(), line.reach_of_change())
        if reach < length // 2:
            return reach
    raise InputError(
        f"graph {source.role}: its outputs reach {length // 2} times {alignment} pixels into its inputs and "
        "further; if it needs the whole image, give it the halo WHOLE"
    )


@dataclass(frozen=True)
class _Line:
    """A graph on a row of windows, or on an `upright` column of them."""

    source: SourceGraph
    alignment: int
    length: int
    upright: bool

    @torch.enable_grad()
    def reach_of_gradient(self) -> int:
        """How far from the middle inputs have a gradient of the middle's outputs, in windows."""
        inputs = [x.requires_grad_() for x in self._inputs(seed=0)]
        outputs = zip(self.source.run(inputs), self.source.outputs, strict=True)
        total = torch.zeros(()) + sum(self._window(x, spec, self.length // 2).square().sum() for x, spec in outputs)
        read = [(x, spec) for x, spec in zip(inputs, self.source.inputs, strict=True) if spec.stride]
        if not read or not total.requires_grad:
            return 0
        gradients = torch.autograd.grad(total, [x for x, _ in read], allow_unused=True)
        pairs = zip(gradients, read, strict=True)
        return self._furthest((gradient, spec) for gradient, (_, spec) in pairs if gradient is not None)

    @torch.no_grad()
    def reach_of_change(self) -> int:
        """How far from the middle outputs change with the middle's inputs, in windows."""
        first, other = self._inputs(seed=0), self._inputs(seed=1)
        changed = [x.clone() for x in first]
        for x, y, spec in zip(changed, other, self.source.inputs, strict=True):
            if spec.stride:
                self._window(x, spec, self.length // 2).copy_(_AMPLITUDE * self._window(y, spec, self.length // 2))
        pairs = zip(self.source.run(first), self.source.run(changed), self.source.outputs, strict=True)
        return self._furthest((a != b, spec) for a, b, spec in pairs)

    def _inputs(self, seed: int) -> tuple[Tensor, ...]:
        rows, columns = (self.length, 1) if self.upright else (1, self.length)
        return example_inputs(self.source, self.alignment, rows, columns, seed)

    def _furthest(self, tensors: Iterable[tuple[Tensor, TensorSpec]]) -> int:
        """How far from the middle the tensors are not zero, in windows."""
        reached = [
            abs(k - self.length // 2)
            for x, spec in tensors
            for k in range(self.length)
            if self._window(x, spec, k).any()
        ]
        return max(reached, default=0)

    def _window(self, tensor: Tensor, spec: TensorSpec, k: int) -> Tensor:
        """The part of window k; all of a tensor without extent."""
        if not spec.stride:
            return tensor
        unit = self.alignment // spec.stride
        return tensor.narrow(2 if self.upright else 3, k * unit, unit)
