"""PyTorch networks to ONNX graphs with dynamic height and width."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch

import condic.models.blocks  # noqa: F401  (registers the operator of attention)
from condic.errors import InputError, first_line
from condic.export.attention import attention_decomposed, attention_fused
from condic.export.parts import compute_in_parts
from condic.export.source import SourceGraph

OPSET, FUSED_OPSET = 20, 23
"""Opset of graphs with decomposed attention, and of those with `Attention` nodes."""
_MOST_WINDOWS = 1024


def export_graph(source: SourceGraph, alignment: int, *, fused_attention: bool = False) -> onnx.ModelProto:
    """One network as ONNX in float32, inputs and outputs named as in `source`, H and W multiples of the alignment.

    Raises InputError, with PyTorch's error as its cause, for what PyTorch's exporter or ONNX has not.

    With `fused_attention`, windowed attention is one `Attention` node a block (opset 23), for engines that fuse it;
    otherwise MatMul-Softmax-MatMul (opset 20).
    """
    rows = torch.export.Dim("rows", min=1, max=_MOST_WINDOWS)
    columns = torch.export.Dim("columns", min=1, max=_MOST_WINDOWS)
    shapes = tuple(
        {2: alignment // x.stride * rows, 3: alignment // x.stride * columns} if x.stride else None
        for x in source.inputs
    )
    attention = attention_fused if fused_attention else attention_decomposed
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                source.network.eval(),
                example_inputs(source, alignment, 2, 3),
                dynamo=True,
                verbose=False,
                opset_version=FUSED_OPSET if fused_attention else OPSET,
                dynamic_shapes=tuple(inspect.signature(source.network.forward).bind(*shapes).arguments.values()),
                input_names=[x.name for x in source.inputs],
                output_names=[x.name for x in source.outputs],
                custom_translation_table={torch.ops.condic.attend_in_windows.default: attention},
            )
    except Exception as error:  # each part of PyTorch's exporter has errors of its own
        raise InputError(f"graph {source.role}: PyTorch does not export it: {first_line(_cause(error))}") from error
    assert program is not None
    model = program.model_proto
    _strip(model, source)
    compute_in_parts(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def example_inputs(
    source: SourceGraph, alignment: int, rows: int, columns: int, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Random inputs for `rows` x `columns` windows: integers within the limits for exact graphs, reals for others."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for k, x in enumerate(source.inputs):
        shape = x.shape(rows * alignment, columns * alignment)
        if source.exact:
            low, high = source.limits[k] if k < len(source.limits) else (-100, 100)
            result.append(torch.randint(low, high + 1, shape, generator=generator).float())
        else:
            result.append(
                torch.rand(shape, generator=generator) if x.stride <= 1 else torch.randn(shape, generator=generator)
            )
    return tuple(result)


def _cause(error: Exception) -> Exception:
    """The error at the bottom; those above it tell how to report faults of the exporter."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _strip(model: onnx.ModelProto, source: SourceGraph) -> None:
    """Removes what the exporter leaves for debugging, paths of this machine among it."""
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = source.role, "", ""
    model.producer_name, model.producer_version = "condic", ""
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for node in graph.node:
        if node.op_type == "Attention":
            del node.output[1:]  # caches of keys and values, which nothing reads
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's chatter off the terminal."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
