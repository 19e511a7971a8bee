"""Layers whose result is split, as a layer for each part.

A Split copies the whole result once more, for which runtimes on a CPU took up to half as long as for the layer itself.
The numbers are the same: each channel depends on its own weights alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

_RESULT_AXES = {"Conv": (1,), "MatMul": (3, -1)}
"""Axes of a result [B, C, H, W], or [B, H, W, C], along which each part has weights of its own."""
_WEIGHT_AXIS = {"Conv": 0, "MatMul": -1, "Add": -1}


def compute_in_parts(model: onnx.ModelProto) -> None:
    """Rewrites every Conv, and MatMul and Add, with constant weights whose result only a Split in equal parts reads."""
    graph = model.graph
    constants = {x.name: x for x in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter([*(name for node in graph.node for name in node.input), *(x.name for x in graph.output)])
    nodes: list[NodeProto] = []
    for node in graph.node:
        layer = _layer_before(node, constants, producers, readers)
        if not layer:
            nodes.append(node)
            continue
        nodes = [x for x in nodes if all(x is not y for y in layer)]
        for k, output in enumerate(node.output):
            nodes += _part(graph, constants, layer, k, len(node.output), output)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for x in constants.values():
        if x.name not in read:
            graph.initializer.remove(x)


def _layer_before(
    split: NodeProto,
    constants: Mapping[str, TensorProto],
    producers: Mapping[str, NodeProto],
    readers: Mapping[str, int],
) -> list[NodeProto]:
    """The nodes of the layer that a Split cuts, in order; none if it is no such Split."""
    settings = {x.name: x.i for x in split.attribute}
    if split.op_type != "Split" or "num_outputs" not in settings:
        return []
    layer: list[NodeProto] = []
    name = split.input[0]
    while name in producers and readers[name] == 1:
        node = producers[name]
        if node.op_type not in _WEIGHT_AXIS or [x in constants for x in node.input].count(False) != 1:
            return []
        layer.insert(0, node)
        if node.op_type in _RESULT_AXES:
            fits = settings["axis"] in _RESULT_AXES[node.op_type] and _has_parts(layer, len(split.output), constants)
            return layer if fits else []
        (name,) = (x for x in node.input if x not in constants)
    return []


def _has_parts(layer: Sequence[NodeProto], count: int, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a layer's constants have numbers of their own for each channel of the result, which `count` divides."""
    first = layer[0]
    grouped = any(x.name == "group" and x.i != 1 for x in first.attribute)
    if first.input[0] in constants or grouped or (first.op_type == "Conv" and len(layer) > 1):
        return False
    given = [(constants[name].dims, node.op_type) for node in layer for name in node.input if name in constants]
    channels = {dims[_WEIGHT_AXIS[kind]] if dims else 1 for dims, kind in given}
    return len(channels) == 1 and channels.pop() % count == 0


def _part(
    graph: onnx.GraphProto,
    constants: Mapping[str, TensorProto],
    layer: Sequence[NodeProto],
    k: int,
    count: int,
    output: str,
) -> Iterator[NodeProto]:
    """Part `k` of `count` of a layer, which gives `output`. Adds its weights to the graph."""
    inner = {node.output[0] for node in layer}
    for node in layer:
        part = NodeProto()
        part.CopyFrom(node)
        part.name = f"{node.name}.{k}"
        part.output[0] = output if node is layer[-1] else f"{node.output[0]}.{k}"
        for position, name in enumerate(node.input):
            if name in constants:
                values = np.split(numpy_helper.to_array(constants[name]), count, _WEIGHT_AXIS[node.op_type])[k]
                graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), f"{name}.{k}"))
            if name in constants or name in inner:
                part.input[position] = f"{name}.{k}"
        yield part
