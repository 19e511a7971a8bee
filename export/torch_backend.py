"""The reference backend: a bundle's ONNX graphs executed with PyTorch operators in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from condic.errors import BackendError
from condic.runtime.arrays import Tensor as Array
from condic.runtime.backends import BackendOptions, Runner
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph

_DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}
_Operator = Callable[..., Any]


_Node = tuple[_Operator, list[str], list[str]]
"""What to call, and the names of inputs and outputs."""


class TorchBackend:
    """Runs graphs node by node. Slow and plain: it is there to agree with, not to be fast."""

    name = "torch"
    driver = None

    def __init__(self, options: BackendOptions) -> None:
        """`options.threads`, where it is not 0, becomes the number of threads of PyTorch in the whole process."""
        if options.threads:
            torch.set_num_threads(options.threads)

    def describe(self) -> str:
        """Library, version and device, for people."""
        return f"PyTorch {torch.__version__}, CPU, float32"

    def load(self, graph: Graph, bundle: Bundle) -> Runner:
        """Parses the graph; BackendError names an operator that this backend does not have."""
        proto = onnx.load_from_string(bundle.graphs[graph.role])
        if unknown := unknown_operators(proto):
            raise BackendError(f"operator {unknown[0]} is not known to the torch backend")
        constants = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in proto.graph.initializer}
        nodes = [_node(n) for n in proto.graph.node]
        _fold_stored_weights(constants, nodes)
        unread = _unread_after(nodes, {x.name for x in graph.outputs})

        @torch.inference_mode()
        def run(inputs: Sequence[Array]) -> list[Array]:
            values: dict[str, Any] = dict(constants)
            for spec, array in zip(graph.inputs, inputs, strict=True):
                values[spec.name] = torch.from_numpy(np.ascontiguousarray(array))
            for (operator, names, outputs), done in zip(nodes, unread, strict=True):
                results = operator(*[values[name] if name else None for name in names])
                results = results if isinstance(results, (tuple, list)) else (results,)
                values.update(zip(outputs, results, strict=True))
                for name in done:
                    del values[name]
            return [values[x.name].numpy() for x in graph.outputs]

        return run


def unknown_operators(proto: onnx.ModelProto) -> list[str]:
    """The operators of a graph that this backend does not have."""
    return sorted({node.op_type for node in proto.graph.node} - _OPERATORS.keys())


def _node(node: onnx.NodeProto) -> _Node:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    operator = _OPERATORS[node.op_type]
    return (lambda *inputs: operator(*inputs, **attributes)), list(node.input), list(node.output)


def _unread_after(nodes: Sequence[_Node], outputs: set[str]) -> list[list[str]]:
    """Per node, the values that nothing reads after it: a large image's would fill the memory."""
    read, result = set(outputs), list[list[str]]()
    for _, names, results in reversed(nodes):
        result.append(sorted({*names, *results} - read - {""}))
        read.update(names)
    return result[::-1]


def _fold_stored_weights(constants: dict[str, Tensor], nodes: list[_Node]) -> None:
    """Runs, once, the nodes that only read constants: the casts of stored weights."""
    kept = []
    for operator, names, outputs in nodes:
        if names and all(name in constants for name in names) and len(outputs) == 1:
            constants[outputs[0]] = operator(*[constants[name] for name in names])
        else:
            kept.append((operator, names, outputs))
    nodes[:] = kept


def _conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, strides: list[int], pads: list[int], group: int,
    dilations: Sequence[int] = (1, 1), **_: Any,
) -> Tensor:  # fmt: skip
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, w, b, stride=strides, padding=(top, left), dilation=tuple(dilations), groups=group)


def _conv_transpose(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, strides: list[int], pads: list[int], group: int = 1,
    output_padding: Sequence[int] = (0, 0), dilations: Sequence[int] = (1, 1), **_: Any,
) -> Tensor:  # fmt: skip
    assert pads[:2] == pads[2:], "the exporter writes other margins as output_padding"
    return F.conv_transpose2d(
        x, w, b, stride=strides, padding=pads[:2], output_padding=tuple(output_padding), groups=group,
        dilation=tuple(dilations),
    )  # fmt: skip


def _constant(**attributes: Any) -> Tensor:
    ((kind, value),) = attributes.items()
    if kind == "value":
        return torch.tensor(numpy_helper.to_array(value))
    return torch.tensor(value, dtype=torch.float32 if kind.startswith("value_float") else torch.int64)


def _depth_to_space(x: Tensor, *, blocksize: int, mode: bytes = b"DCR") -> Tensor:
    if mode == b"CRD":
        return F.pixel_shuffle(x, blocksize)
    b, c, h, w = x.shape
    x = x.reshape(b, blocksize, blocksize, c // blocksize**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, c // blocksize**2, h * blocksize, w * blocksize)


def _space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // blocksize, blocksize, w // blocksize, blocksize).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, c * blocksize**2, h // blocksize, w // blocksize)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, epsilon: float, **_: Any) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, epsilon)


def _reshape(x: Tensor, shape: Tensor, **_: Any) -> Tensor:
    return x.reshape([x.shape[k] if n == 0 else n for k, n in enumerate(shape.tolist())])


def _split(x: Tensor, sizes: Tensor | None = None, *, axis: int, num_outputs: int = 0) -> tuple[Tensor, ...]:
    return x.chunk(num_outputs, dim=axis) if sizes is None else x.split(sizes.tolist(), dim=axis)  # type: ignore[no-untyped-call]


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, **_: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _div(a: Tensor, b: Tensor) -> Tensor:
    """Of integers, as shapes are computed from, the quotient rounded towards zero."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, steps: Tensor) -> Tensor:
    for start, end, axis, step in zip(*(v.tolist() for v in (starts, ends, axes, steps)), strict=True):
        if step < 0:  # PyTorch's own slices go forwards only
            x = x.index_select(axis, torch.tensor(range(x.shape[axis])[start:end:step], dtype=torch.int64))
        else:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(start, min(end, x.shape[axis]), step),)]
    return x


def _pad(x: Tensor, pads: Tensor, value: Tensor | None = None, *, mode: bytes = b"constant") -> Tensor:
    begins, ends = pads.view(2, -1).tolist()
    edges = [n for pair in reversed(list(zip(begins, ends, strict=True))) for n in pair]
    if mode == b"constant":
        return F.pad(x, edges, value=0.0 if value is None else float(value))
    assert not any(edges[4:]), "batch and channels have no edges"
    return F.pad(x, edges[:4], mode={b"reflect": "reflect", b"edge": "replicate", b"wrap": "circular"}[mode])


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(n % (x.dim() + axes.numel()) for n in axes.flatten().tolist()):
        x = x.unsqueeze(axis)
    return x


def _cast(x: Tensor, *, to: int, **_: Any) -> Tensor:
    return x.to(_DTYPES[to])


_OPERATORS: dict[str, _Operator] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Attention": _attention,
    "Cast": _cast,
    "Clip": lambda x, low=None, high=None: torch.clip(x, low, high),
    "Concat": lambda *xs, axis: torch.cat(xs, dim=axis),
    "Constant": _constant,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _div,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Gelu": lambda x, approximate: F.gelu(x, approximate=approximate.decode()),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, alpha: F.leaky_relu(x, alpha),
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Pad": _pad,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Shape": lambda x, start=0, end=None: torch.tensor(x.shape[start:end]),
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Softmax": lambda x, axis: torch.softmax(x, dim=axis),
    "Softplus": F.softplus,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist())),
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm: x.permute(perm),
    "Unsqueeze": _unsqueeze,
}
