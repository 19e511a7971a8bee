"""Whether a codec is what it says of itself: asked of its networks in PyTorch, before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from condic.errors import InputError, first_line
from condic.export.identity import constants_of, weights_of
from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceCodec, SourceGraph
from condic.models.exact import STREAM_LIMIT, SUM_LIMIT, ExactConv
from condic.runtime.manifest import QUALITY_LEVELS


@torch.no_grad()
def check_source(source: SourceCodec) -> None:
    """Weights that bundles can hold and ids tell; networks that give what their graphs say. Raises InputError."""
    for name, parameter in source.model.named_parameters():
        _check_half(name, parameter)
    for path, module in source.model.named_modules():
        for tensor in constants_of(module):
            _check_half(f"a buffer of {path or 'the model'}", tensor)
    for name, value in source.options.items():
        if not isinstance(value, str):
            raise InputError(f"option {name} is a {type(value).__name__}; manifests have strings")
    held = {id(x) for module in source.model.modules() for x in weights_of(module)}
    for graph in source.graphs:
        if any(id(x) not in held for module in graph.network.modules() for x in weights_of(module)):
            raise InputError(
                f"graph {graph.role} has weights that are not its codec's `model`'s, so no id would tell them"
            )
        if odd := [x for x in (*graph.inputs, *graph.outputs) if x.stride and source.alignment % x.stride]:
            raise InputError(
                f"graph {graph.role}: {odd[0].name} at 1/{odd[0].stride} has no whole number of elements "
                f"in {source.alignment} pixels"
            )
        names = [x.name for x in (*graph.inputs, *graph.outputs)]
        if len(set(names)) != len(names):
            raise InputError(f"graph {graph.role} has two tensors of one name: {', '.join(names)}")
        if graph.exact:
            _check_exact(graph, source)
        try_network(graph, source.alignment, 1, 1)


@torch.no_grad()
def try_network(
    graph: SourceGraph, alignment: int, rows: int, columns: int, seed: int = 0
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Random inputs for `rows` x `columns` windows, and what the network makes of them.

    Raises InputError if it does not take what the graph says that it does, or does not give what it says.
    """
    size = f"{rows * alignment}x{columns * alignment}"
    inputs = example_inputs(graph, alignment, rows, columns, seed)
    try:
        outputs = graph.run(inputs)
    except Exception as error:  # a network may fail in any way
        raise InputError(f"graph {graph.role} fails on an image of {size}: {first_line(error)}") from error
    if not all(isinstance(x, Tensor) and x.dtype == torch.float32 for x in outputs):
        kinds = ", ".join(str(x.dtype if isinstance(x, Tensor) else type(x).__name__) for x in outputs)
        raise InputError(f"graph {graph.role} gives {kinds}, not a tensor of torch.float32 or a tuple of them")
    shapes = [tuple(x.shape) for x in outputs]
    stated = [x.shape(rows * alignment, columns * alignment) for x in graph.outputs]
    if shapes != stated:
        raise InputError(f"graph {graph.role}: an image of {size} gives {shapes}, its outputs say {stated}")
    return inputs, outputs


def _check_half(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        return
    if tensor.dtype != torch.float32:
        raise InputError(f"{name} is {tensor.dtype}; models are exported in float32: model.half().float()")
    if not tensor.half().isfinite().all():
        raise InputError(f"{name} has values that are not finite or beyond half precision, in which bundles store them")
    if not torch.equal(tensor, tensor.half().float()):
        raise InputError(
            f"{name} has more digits than half precision, in which bundles store weights; round the model first: "
            "model.half().float()"
        )


def _check_exact(graph: SourceGraph, source: SourceCodec) -> None:
    """Whether a graph in integers is built as the known-answer test needs it."""
    layers = [module for module in graph.network.modules() if isinstance(module, ExactConv)]
    if not layers:
        raise InputError(f"graph {graph.role} has `limits`, but no layer that computes in integers (ExactConv)")
    if not all(layer.frozen for layer in layers):
        raise InputError(
            f"graph {graph.role} has `limits`, but layers that are not frozen to integers (ExactConv.freeze)"
        )
    table, bias = f"quality.{graph.role}", graph.inputs[-1]
    if table not in source.tables or bias.stride or len(graph.limits) != len(graph.inputs) - 1:
        raise InputError(
            f"graph {graph.role} computes in integers: its last input is a row of table {table}, integers that a layer "
            "adds to its sums, and `limits` has a pair for each other one"
        )
    if not all(-STREAM_LIMIT <= low <= high <= STREAM_LIMIT for low, high in graph.limits):
        raise InputError(f"graph {graph.role}: `limits` {graph.limits} do not lie in -{STREAM_LIMIT}..{STREAM_LIMIT}")
    rows = source.tables[table]
    if rows.shape != (QUALITY_LEVELS, bias.channels) or not np.issubdtype(rows.dtype, np.integer):
        raise InputError(
            f"table {table} is {rows.dtype} of shape {rows.shape}; graph {graph.role} takes integers of shape "
            f"({QUALITY_LEVELS}, {bias.channels})"
        )
    if np.abs(rows.astype(np.int64)).max() >= SUM_LIMIT:
        raise InputError(f"table {table} has values of 2^24 and more, which float32 does not hold exactly")
