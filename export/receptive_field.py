"""How far a graph's outputs reach into its inputs, measured: the halo that tiles need."""

from __future__ import annotations

import torch

from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceGraph

_MOST_WINDOWS = 65
WHOLE = 2**16
"""A halo that reaches beyond every edge."""


def halo(source: SourceGraph) -> int:
    """Windows (of the alignment) on each side of a window that its outputs depend on: where their gradient is not zero.

    Measured along a row of windows, in float form (a frozen network has no gradient), long enough that the dependence
    ends before the row does. Graphs that need the whole image have a halo larger than any.
    """
    if source.whole:
        return WHOLE
    windows = 5
    while windows <= _MOST_WINDOWS:
        reach = _reach(source, windows)
        if reach < windows // 2:
            return reach
        windows = 2 * windows + 1
    raise AssertionError(f"{source.role}: its receptive field is not bounded")


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
