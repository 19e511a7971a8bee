"""A bundle's graphs as TensorRT's parsers take them.

Parsers know no int16 weights, those before TensorRT 10.14 no `Attention`, and that of 8.6 no opset after 17. Blocks of
attention get names by which an engine's layers are recognised (`condic.engines.attention`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from condic.errors import BackendError, first_line

OLD_OPSET, OLD_IR = 17, 8
"""What is written for parsers without `Attention`: the opset, and the version of the file format that goes with it."""
_LATER_ATTRIBUTES = {"Cast": ("saturate", "round_mode"), "Split": ("num_outputs",)}
"""Attributes that opset 17 does not have, and that say what it does without them."""
_AXES_ARE_INPUTS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
)  # fmt: skip
"""Operators whose axes are an attribute in opset 17, and an input later."""
_BETWEEN = ("Add", "Cast", "Div", "Mul", "Reshape", "Sub", "Where")
"""What may stand between the scores of attention and their Softmax."""


@dataclass(frozen=True)
class Blocks:
    """How many blocks of attention a graph has, and how many of them are one `Attention` node."""

    whole: int
    apart: int


def for_tensorrt(graph: bytes, *, attention: bool) -> bytes:
    """The graph with float32 weights, blocks of attention named `attention_0`, and as old an opset as needed.

    `attention` says that the parser knows opset 23. If not, each `Attention` becomes MatMul, Softmax and MatMul
    (`attention_0.scores`, `.softmax`, `.values`), and the opset 17. Raises BackendError for what that does not have.
    """
    model = onnx.load_from_string(graph)
    _unpack_weights(model.graph)
    if attention:
        _let_windows_be_heads(model)
    else:
        _lower(model)
    _name_blocks(model.graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx has errors of several kinds
        opset = model.opset_import[0].version
        raise BackendError(
            f"it cannot be written in opset {opset}, which this TensorRT reads: {first_line(error)}"
        ) from error
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def blocks_of(graph: bytes) -> Blocks:
    """Blocks of attention in a graph: every `Attention` is one, and so is every Softmax between two MatMuls."""
    blocks = [len(nodes) for nodes in _blocks(onnx.load_from_string(graph).graph)]
    return Blocks(blocks.count(1), blocks.count(3))


def _unpack_weights(graph: onnx.GraphProto) -> None:
    """Runs the casts of stored weights: parsers know neither all the types, nor that these are weights."""
    stored = {x.name: x for x in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            dtype = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
            values = numpy_helper.to_array(stored[node.input[0]]).astype(dtype)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    _replace_nodes(graph, kept)
    read = {name for node in kept for name in node.input}
    for tensor in [x for x in graph.initializer if x.name not in read]:
        graph.initializer.remove(tensor)


def _let_windows_be_heads(model: onnx.ModelProto) -> None:
    """Swaps the first two axes around attention with one head: TensorRT has no kernel for one head with a bias."""
    single = {name for name, x in _types(model).items() if [d.dim_value for d in x.shape.dim][1:2] == [1]}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Attention" or node.input[0] not in single:
            nodes.append(node)
            continue
        for k, name in enumerate(node.input):
            node.input[k] = f"{node.name}_swapped_{k}"
            nodes.append(_swap(name, node.input[k]))
        result, node.output[0] = node.output[0], f"{node.name}_swapped"
        nodes += [node, _swap(node.output[0], result)]
    _replace_nodes(model.graph, nodes)


def _swap(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], [target], target, perm=[1, 0, 2, 3])


def _lower(model: onnx.ModelProto) -> None:
    """To opset 17; what it does not have is written with what it has."""
    halves = {name for name, x in _types(model).items() if x.elem_type == TensorProto.FLOAT16}
    constants = _constants(model.graph)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        dtype = np.dtype(np.float16 if node.input and node.input[0] in halves else np.float32)
        if node.op_type == "Attention":
            nodes += _attention(node, dtype)
        elif node.op_type == "Gelu":
            nodes += _gelu(node, dtype)
        else:
            later = _LATER_ATTRIBUTES.get(node.op_type, ())
            for attribute in [x for x in node.attribute if x.name in later]:
                node.attribute.remove(attribute)
            if node.op_type in _AXES_ARE_INPUTS and len(node.input) == 2 and node.input[1] in constants:
                axes = numpy_helper.to_array(constants[node.input.pop()])
                node.attribute.append(helper.make_attribute("axes", axes.tolist()))
            nodes.append(node)
    _replace_nodes(model.graph, nodes)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OLD_OPSET))
    model.ir_version = OLD_IR


def _attention(node: onnx.NodeProto, dtype: np.dtype) -> Iterator[onnx.NodeProto]:
    """softmax(scale q k^T + bias) v. The query is scaled before, as TensorRT's fusions want it."""
    query, key, value, bias = node.input
    (scale,) = (x.f for x in node.attribute if x.name == "scale")
    x = f"{node.name}_"
    yield _constant(f"{x}scale", scale, dtype)
    yield helper.make_node("Mul", [query, f"{x}scale"], [f"{x}query"], f"{x}query")
    yield helper.make_node("Transpose", [key], [f"{x}key"], f"{x}key", perm=[0, 1, 3, 2])
    yield helper.make_node("MatMul", [f"{x}query", f"{x}key"], [f"{x}scores"], f"{x}scores")
    yield helper.make_node("Add", [f"{x}scores", bias], [f"{x}biased"], f"{x}biased")
    yield helper.make_node("Softmax", [f"{x}biased"], [f"{x}weights"], f"{x}softmax", axis=-1)
    yield helper.make_node("MatMul", [f"{x}weights", value], [node.output[0]], f"{x}values")


def _gelu(node: onnx.NodeProto, dtype: np.dtype) -> Iterator[onnx.NodeProto]:
    """x/2 (1 + erf(x / sqrt 2)), or x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the operator's definition."""
    (source,), (target,), x = node.input, node.output, f"{node.name}_"
    approximate = next((a.s for a in node.attribute if a.name == "approximate"), b"none")
    for name, number in (("half", 0.5), ("one", 1.0)):
        yield _constant(f"{x}{name}", number, dtype)
    if approximate == b"tanh":
        yield _constant(f"{x}cubic", 0.044715, dtype)
        yield _constant(f"{x}factor", math.sqrt(2 / math.pi), dtype)
        yield helper.make_node("Mul", [source, source], [f"{x}square"], f"{x}square")
        yield helper.make_node("Mul", [f"{x}square", f"{x}cubic"], [f"{x}scaled"], f"{x}scaled")
        yield helper.make_node("Add", [f"{x}scaled", f"{x}one"], [f"{x}rise"], f"{x}rise")
        yield helper.make_node("Mul", [source, f"{x}rise"], [f"{x}inner"], f"{x}inner")
        yield helper.make_node("Mul", [f"{x}inner", f"{x}factor"], [f"{x}argument"], f"{x}argument")
        yield helper.make_node("Tanh", [f"{x}argument"], [f"{x}bend"], f"{x}bend")
    else:
        yield _constant(f"{x}factor", math.sqrt(0.5), dtype)
        yield helper.make_node("Mul", [source, f"{x}factor"], [f"{x}argument"], f"{x}argument")
        yield helper.make_node("Erf", [f"{x}argument"], [f"{x}bend"], f"{x}bend")
    yield helper.make_node("Add", [f"{x}bend", f"{x}one"], [f"{x}gate"], f"{x}gate")
    yield helper.make_node("Mul", [source, f"{x}half"], [f"{x}halved"], f"{x}halved")
    yield helper.make_node("Mul", [f"{x}halved", f"{x}gate"], [target], node.name)


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Initializers, and what Constant nodes hold."""
    nodes = {x.output[0]: a.t for x in graph.node if x.op_type == "Constant" for a in x.attribute if a.name == "value"}
    return {x.name: x for x in graph.initializer} | nodes


def _constant(name: str, number: float, dtype: np.dtype) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(np.array(number, dtype)))


def _name_blocks(graph: onnx.GraphProto) -> None:
    """Names the nodes of each block of attention after its number."""
    for count, nodes in enumerate(_blocks(graph)):
        names = [""] if len(nodes) == 1 else [".scores", ".softmax", ".values"]
        for node, name in zip(nodes, names, strict=True):
            node.name = f"attention_{count}{name}"


def _blocks(graph: onnx.GraphProto) -> list[list[onnx.NodeProto]]:
    """The nodes of each block of attention: an `Attention`, or MatMul, Softmax and MatMul.

    Other Softmaxes, such as one over channels, are in no block.
    """
    producers = {name: node for node in graph.node for name in node.output}
    blocks = []
    for node in graph.node:
        if node.op_type == "Attention":
            blocks.append([node])
        elif node.op_type == "Softmax":
            scores = producers.get(node.input[0])
            while scores is not None and scores.op_type in _BETWEEN:
                scores = producers.get(scores.input[0])
            readers = [x for x in graph.node if node.output[0] in x.input]
            if scores is not None and [x.op_type for x in (scores, *readers)] == ["MatMul", "MatMul"]:
                blocks.append([scores, node, *readers])
    return blocks


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element type and shape of all that nodes give, and of the graph's inputs."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {x.name: x.type.tensor_type for x in (*graph.input, *graph.value_info)}


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
