"""PyTorch networks to ONNX graphs with dynamic height and width."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnxscript
import torch
from onnxscript import opset20, opset23

from condic.export.codec_graphs import SourceGraph
from condic.models.blocks import HEAD, WINDOW
from condic.models.dcic_sgp import ALIGNMENT

OPSET, FUSED_OPSET = 20, 23
"""Opset of graphs with decomposed attention, and of those with `Attention` nodes."""
_MOST_WINDOWS = 1024
_TOKENS = WINDOW * WINDOW


def export_graph(source: SourceGraph, *, fused_attention: bool = False) -> onnx.ModelProto:
    """One network as ONNX in float32, inputs and outputs named as in `source`, H and W multiples of the alignment.

    With `fused_attention`, windowed attention is one `Attention` node a block (opset 23), for engines that fuse it;
    otherwise MatMul-Softmax-MatMul (opset 20).
    """
    rows = torch.export.Dim("rows", min=1, max=_MOST_WINDOWS)
    columns = torch.export.Dim("columns", min=1, max=_MOST_WINDOWS)
    shapes = tuple(
        {2: ALIGNMENT // x.stride * rows, 3: ALIGNMENT // x.stride * columns} if x.stride else None for x in source.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            source.network.eval(), example_inputs(source, 2, 3), dynamo=True, opset_version=FUSED_OPSET if fused_attention else OPSET,
            dynamic_shapes=(shapes,) if _takes_varargs(source) else shapes, verbose=False,
            input_names=[x.name for x in source.inputs], output_names=[x.name for x in source.outputs],
            custom_translation_table={
                torch.ops.condic.attend_in_windows.default: _attention_fused if fused_attention else _attention_decomposed
            },
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    _strip(model, source)
    onnx.checker.check_model(model, full_check=True)
    return model


def example_inputs(source: SourceGraph, rows: int, columns: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Random inputs for `rows` x `columns` windows: integers within the limits for exact graphs, normal reals for others."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for k, x in enumerate(source.inputs):
        size = (rows * ALIGNMENT // x.stride, columns * ALIGNMENT // x.stride) if x.stride else (1, 1)
        shape = (1, x.channels, *size)
        if source.exact:
            low, high = source.limits[k] if k < len(source.limits) else (-100, 100)
            result.append(torch.randint(low, high + 1, shape, generator=generator).float())
        else:
            result.append(torch.rand(shape, generator=generator) if x.stride <= 1 else torch.randn(shape, generator=generator))
    return tuple(result)


def _takes_varargs(source: SourceGraph) -> bool:
    return source.network.forward.__code__.co_argcount == 1


def _windows(x: onnxscript.FLOAT) -> onnxscript.FLOAT:
    """[B, H, W, C] to [B, H/8, W/8, 64 * C], pixels before channels."""
    x = opset20.SpaceToDepth(opset20.Transpose(x, perm=[0, 3, 1, 2]), blocksize=WINDOW)
    return opset20.Transpose(x, perm=[0, 2, 3, 1])


def _heads(x: onnxscript.FLOAT, heads: int, perm: list[int]) -> onnxscript.FLOAT:
    return opset20.Transpose(opset20.Reshape(x, opset20.Constant(value_ints=[-1, _TOKENS, heads, HEAD])), perm=perm)


def _from_heads(x: onnxscript.FLOAT, windows: onnxscript.FLOAT) -> onnxscript.FLOAT:
    x = opset20.Reshape(opset20.Transpose(x, perm=[0, 2, 1, 3]), opset20.Shape(windows))
    x = opset20.DepthToSpace(opset20.Transpose(x, perm=[0, 3, 1, 2]), blocksize=WINDOW, mode="DCR")
    return opset20.Transpose(x, perm=[0, 2, 3, 1])


def _attention_decomposed(query, key, value, position):  # type: ignore[no-untyped-def]
    heads = position.shape[0]
    windows = _windows(query)
    q, k = _heads(windows, heads, [0, 2, 1, 3]), _heads(_windows(key), heads, [0, 2, 3, 1])
    v = _heads(_windows(value), heads, [0, 2, 1, 3])
    scores = opset20.Mul(opset20.MatMul(q, k), opset20.Constant(value_float=HEAD**-0.5))
    weights = opset20.Softmax(opset20.Add(scores, position), axis=-1)
    return _from_heads(opset20.MatMul(weights, v), windows)


def _attention_fused(query, key, value, position):  # type: ignore[no-untyped-def]
    heads = position.shape[0]
    windows = _windows(query)
    q, k, v = (_heads(x, heads, [0, 2, 1, 3]) for x in (windows, _windows(key), _windows(value)))
    mask = opset23.Unsqueeze(position, opset23.Constant(value_ints=[0]))
    return _from_heads(opset23.Attention(q, k, v, mask, scale=HEAD**-0.5), windows)


def _strip(model: onnx.ModelProto, source: SourceGraph) -> None:
    """Removes what the exporter leaves for debugging, paths of this machine among it."""
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = source.role, "", ""
    model.producer_name, model.producer_version = "condic", ""
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
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
