"""How a graph's weights are stored, and float graphs in half precision."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SMALLEST_STORED = 16
"""Constants with fewer elements stay as they are."""
_OF_OTHER_TYPES = {"Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Unsqueeze": (1,)}
"""Inputs of operators that are not what they compute on."""


def store_float(model: onnx.ModelProto) -> None:
    """Stores float32 initializers as float16, cast when loaded."""
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and _size(tensor) >= _SMALLEST_STORED:
            _store(model, tensor, numpy_helper.to_array(tensor).astype(np.float16))


def store_exact(model: onnx.ModelProto) -> None:
    """Stores the integers of an exact graph's convolutions: weights as int16, biases as int32, cast when loaded."""
    tensors = {t.name: t for t in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "Conv"]:
        for name, dtype in zip(node.input[1:], (np.int16, np.int32), strict=False):
            values = numpy_helper.to_array(tensors[name])
            integers = values.astype(dtype)
            if not np.array_equal(integers, values):
                raise ValueError(f"{name}: not integers that {np.dtype(dtype).name} holds")
            _store(model, tensors[name], integers)


def to_half(model: onnx.ModelProto) -> None:
    """Runs a float graph in float16 between float32 inputs and outputs.

    The last layer before each output and what follows it stay float32, so that no rounding shows in pixels or latents.
    """
    graph = model.graph
    full = _tail(graph)
    constants = {t.name for t in graph.initializer}
    settings = {n.input[k] for n in graph.node for k in _OF_OTHER_TYPES.get(n.op_type, ()) if k < len(n.input)}
    copies = _convert_initializers(graph, full, settings)
    half: dict[str, str] = {}  # name of a float32 value -> its float16 form
    nodes: list[onnx.NodeProto] = []
    float_values = {x.name for x in graph.input} | {name for k in full for name in graph.node[k].output}
    for k, node in enumerate(graph.node):
        inside = k in full
        for position, name in enumerate(node.input):
            if not name or name in settings:
                continue
            if name in constants:
                node.input[position] = name if inside else copies.get(name, name)
                continue
            if inside and name not in float_values:
                node.input[position] = _cast(nodes, half, name, TensorProto.FLOAT, f"{name}_f32")
            elif not inside and name in float_values:
                node.input[position] = _cast(nodes, half, name, TensorProto.FLOAT16, f"{name}_f16")
        if node.op_type == "Constant" and not inside and node.output[0] not in settings:
            _halve_constant(node)
        if node.op_type == "Cast" and not inside:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        nodes.append(node)
    for x in graph.output:
        if x.name not in float_values:
            producer = next(n for n in nodes if x.name in n.output)
            index = list(producer.output).index(x.name)
            producer.output[index] = f"{x.name}_f16"
            for n in nodes:
                n.input[:] = [f"{x.name}_f16" if name == x.name else name for name in n.input]
            nodes.append(helper.make_node("Cast", [f"{x.name}_f16"], [x.name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)


def _tail(graph: onnx.GraphProto) -> set[int]:
    """Indexes of the nodes from each output back to the first layer with it: a convolution, or MatMul with weights."""
    weights = {x.name for x in graph.initializer}
    producers = {name: k for k, node in enumerate(graph.node) for name in node.output}
    tail: set[int] = set()
    pending = [x.name for x in graph.output if not _feeds_others(graph, x.name)]
    while pending:
        k = producers.get(pending.pop())
        if k is None or k in tail:
            continue
        tail.add(k)
        node = graph.node[k]
        if node.op_type not in ("Conv", "ConvTranspose") and not (
            node.op_type == "MatMul" and node.input[1] in weights
        ):
            pending += [name for name in node.input if name]
    return tail


def _feeds_others(graph: onnx.GraphProto, name: str) -> bool:
    return any(name in node.input for node in graph.node)


def _convert_initializers(graph: onnx.GraphProto, full: set[int], settings: set[str]) -> dict[str, str]:
    """Makes constants float16, but for those of the nodes `full`: which of these have a float16 copy, for others."""
    kept = {name for k in full for name in graph.node[k].input}
    read = {name for k, node in enumerate(graph.node) if k not in full for name in node.input}
    copies = {}
    for tensor in [x for x in graph.initializer if x.data_type == TensorProto.FLOAT and x.name not in settings]:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        if tensor.name not in kept:
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        elif tensor.name in read:
            copies[tensor.name] = f"{tensor.name}_f16"
            graph.initializer.append(numpy_helper.from_array(values, copies[tensor.name]))
    return copies


def _halve_constant(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "value_float":
            value = numpy_helper.from_array(np.array(attribute.f, np.float16))
            attribute.CopyFrom(helper.make_attribute("value", value))
        elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))


def _cast(nodes: list[onnx.NodeProto], done: dict[str, str], name: str, to: int, result: str) -> str:
    if result not in done:
        nodes.append(helper.make_node("Cast", [name], [result], to=to))
        done[result] = result
    return result


def _store(model: onnx.ModelProto, tensor: onnx.TensorProto, stored: np.ndarray) -> None:
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(stored), f"{name}_stored"))
    model.graph.node.insert(0, helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))


def _size(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims)) if tensor.dims else 1
