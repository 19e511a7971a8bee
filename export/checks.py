"""Whether a codec is what it says of itself: asked of its networks in PyTorch, before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from condic.errors import InputError, first_line
from condic.export.identity import constants_of, weights_of
from condic.export.onnx_graphs import example_inputs
from condic.export.source import SourceCodec, SourceGraph
from condic.models.exact import ExactConv


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
    if not any(isinstance(module, ExactConv) for module in graph.network.modules()):
        raise InputError(f"graph {graph.role} has `limits`, but no layer that computes in integers (ExactConv)")
    table = f"quality.{graph.role}"
    if table not in source.tables or graph.inputs[-1].stride or len(graph.limits) != len(graph.inputs) - 1:
        raise InputError(
            f"graph {graph.role} computes in integers: its last input is a row of table {table}, which is added before "
            "the last rounding, and `limits` has a pair for each other one"
        )
