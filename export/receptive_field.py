"""How far a graph's outputs reach into its inputs, measured: the halo that tiles need."""

from __future__ import annotations

import torch

from condic.errors import InputError
from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceGraph

_WINDOWS = (5, 11, 23, 47)


def halo(source: SourceGraph) -> int:
    """Windows (of the alignment) on each side of a window that its outputs depend on: where their gradient is not zero.

    Measured along a row of windows, in float form (a frozen network has no gradient), long enough that the dependence
    ends before the row does. Raises InputError if it does not end.
    """
    for windows in _WINDOWS:
        reach = _reach(source, windows)
        if reach < windows // 2:
            return reach
    raise InputError(
        f"graph {source.role}: its outputs reach {windows // 2} times {source.alignment} pixels into its inputs and "
        "further; if it needs the whole image, give it the halo WHOLE"
    )


def _reach(source: SourceGraph, windows: int) -> int:
    centre = windows // 2
    inputs = example_inputs(source, 1, windows)
    outputs = source.network(*(x.requires_grad_() for x in inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = torch.zeros(())
    for output, spec in zip(outputs, source.outputs, strict=True):
        total = total + _window(output, spec.stride, centre, source.alignment).square().sum()
    read = [(x, spec.stride) for x, spec in zip(inputs, source.inputs, strict=True) if spec.stride]
    gradients = torch.autograd.grad(total, [x for x, _ in read], allow_unused=True)
    reached = [
        abs(k - centre)
        for gradient, (_, stride) in zip(gradients, read, strict=True)
        if gradient is not None
        for k in range(windows)
        if _window(gradient, stride, k, source.alignment).abs().max() > 0
    ]
    return max(reached, default=0)


def _window(tensor: torch.Tensor, stride: int, k: int, alignment: int) -> torch.Tensor:
    unit = alignment // stride
    return tensor[..., k * unit : (k + 1) * unit]
