"""Known-answer tests of exact graphs: inputs that drive sums to the limit, and the hash of the right outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from condic.errors import InputError
from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceGraph
from condic.models.exact import SUM_LIMIT, ExactConv, sums_recorded
from condic.runtime.known_answer import answer_of


@torch.no_grad()
def known_answer(
    source: SourceGraph, alignment: int, bias: Tensor
) -> tuple[dict[str, npt.NDArray[np.generic]], str, float]:
    """Inputs by name (int16; the bias int32), the hash of the outputs, and the largest sum met relative to 2^24.

    Inputs lie at the limits, half of the pixels with the signs of one row of the first layer's weights, so that its
    sum is the largest possible. The answer is computed in float32 and float64. Raises InputError where these differ, or
    a sum is 2^24 or more.
    """
    *parts, _ = example_inputs(source, alignment, 1, 2, seed=1)
    parts = [_extremes(x, limits, k) for k, (x, limits) in enumerate(zip(parts, source.limits, strict=True))]
    _align_with_first_layer(source, parts)
    inputs = [*parts, bias.float().view(1, -1, 1, 1)]
    with sums_recorded(source.network) as sums:
        single = source.run(inputs)
    source.network.double()
    double = source.run([x.double() for x in inputs])
    source.network.float()
    if not sums:
        raise InputError(f"graph {source.role} has `limits`, but runs no layer that computes in integers (ExactConv)")
    largest = max(sums) / SUM_LIMIT
    if largest >= 1:
        raise InputError(f"graph {source.role}: sums of up to {max(sums):.0f} are not exact in float32 (2^24 and more)")
    if not all(torch.equal(a.double(), b) for a, b in zip(single, double, strict=True)):
        raise InputError(f"graph {source.role} has `limits`, but float32 and float64 disagree: it is not exact")
    arrays: dict[str, npt.NDArray[np.generic]] = {
        x.name: value.numpy().astype(np.int16) for x, value in zip(source.inputs, parts, strict=False)
    }
    arrays[source.inputs[-1].name] = bias.numpy().astype(np.int32).reshape(1, -1, 1, 1)
    return arrays, answer_of([x.numpy() for x in single]), largest


def _extremes(x: Tensor, limits: tuple[int, int], seed: int) -> Tensor:
    low, high = limits
    generator = torch.Generator().manual_seed(seed)
    return torch.where(torch.rand(x.shape, generator=generator) < 0.5, float(low), float(high))


def _align_with_first_layer(source: SourceGraph, parts: list[Tensor]) -> None:
    """Rows 1, 3, ... of the inputs follow the signs of the first layers' largest rows of weights."""
    pointwise = [m for m in source.network.modules() if isinstance(m, ExactConv) and m.groups == 1]
    widths = (parts[0].shape[1], sum(p.shape[1] for p in parts))
    first = next((m for m in pointwise if m.int_weight.shape[1] in widths), None)
    if first is None:
        return
    largest = first.int_weight[first.bound.argmax(), :, 0, 0]
    offset = 0
    for k, part in enumerate(parts):
        channels = part.shape[1]
        if offset + channels > len(largest):
            break
        low, high = source.limits[k]
        signs = torch.where(largest[offset : offset + channels] > 0, float(high), float(low))
        part[:, :, 1::2] = signs.view(1, -1, 1, 1)
        offset += channels
