"""How far a graph's outputs reach into its inputs, measured: the halo that tiles need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from condic.errors import InputError
from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceGraph
from condic.runtime.manifest import TensorSpec

_WINDOWS = (5, 11, 23, 47)
_AMPLITUDE = 8
"""Inputs are changed to some that are larger by this: more reaches the next value behind a rounding."""


def halo(source: SourceGraph) -> int:
    """Windows (of the alignment) on each side of a window that its outputs depend on.

    Measured along a row of windows, long enough that the dependence ends before the row does: where the gradient of the
    middle one's outputs is not zero, which tells of the smallest influence; and which outputs change when the middle
    one's inputs do, which sees through what has no gradient, such as a rounding. Raises InputError if it does not end.
    """
    for windows in _WINDOWS:
        reach = max(_reach_of_gradient(source, windows), _reach_of_change(source, windows))
        if reach < windows // 2:
            return reach
    raise InputError(
        f"graph {source.role}: its outputs reach {windows // 2} times {source.alignment} pixels into its inputs and "
        "further; if it needs the whole image, give it the halo WHOLE"
    )


def _reach_of_gradient(source: SourceGraph, windows: int) -> int:
    inputs = example_inputs(source, 1, windows)
    middle = [
        _window(output, spec, windows // 2, source)
        for output, spec in zip(_run(source, [x.requires_grad_() for x in inputs]), source.outputs, strict=True)
    ]
    total = torch.zeros(()) + sum(x.square().sum() for x in middle)
    read = [(x, spec) for x, spec in zip(inputs, source.inputs, strict=True) if spec.stride]
    if not total.requires_grad:
        return 0
    gradients = torch.autograd.grad(total, [x for x, _ in read], allow_unused=True)
    pairs = zip(gradients, read, strict=True)
    return _furthest(((gradient, spec) for gradient, (_, spec) in pairs if gradient is not None), windows, source)


@torch.no_grad()
def _reach_of_change(source: SourceGraph, windows: int) -> int:
    first, other = (example_inputs(source, 1, windows, seed) for seed in (0, 1))
    changed = [x.clone() for x in first]
    for x, y, spec in zip(changed, other, source.inputs, strict=True):
        if spec.stride:
            _window(x, spec, windows // 2, source).copy_(_AMPLITUDE * _window(y, spec, windows // 2, source))
    pairs = zip(_run(source, first), _run(source, changed), source.outputs, strict=True)
    return _furthest(((a != b, spec) for a, b, spec in pairs), windows, source)


def _run(source: SourceGraph, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outputs = source.network(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _furthest(tensors: Iterable[tuple[Tensor, TensorSpec]], windows: int, source: SourceGraph) -> int:
    """How far from the middle the tensors are not zero, in windows."""
    reached = [
        abs(k - windows // 2) for x, spec in tensors for k in range(windows) if _window(x, spec, k, source).any()
    ]
    return max(reached, default=0)


def _window(tensor: Tensor, spec: TensorSpec, k: int, source: SourceGraph) -> Tensor:
    unit = source.alignment // spec.stride
    return tensor[..., k * unit : (k + 1) * unit]
