"""Layers whose result is split become a layer for each part, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from condic.export.parts import compute_in_parts  # noqa: E402

X = np.random.default_rng(1).integers(-9, 10, (1, 4, 6, 4)).astype(np.float32)
"""Integers: whatever the order of a sum, it is the same."""


def model_of(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], **constants: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(-9, 10, shape).astype(np.float32)


def split(name: str, outputs: Sequence[str], axis: int) -> onnx.NodeProto:
    return helper.make_node("Split", [name], outputs, axis=axis, num_outputs=len(outputs))


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after the rewriting, which must be valid and give what it gave."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    compute_in_parts(result)
    onnx.checker.check_model(result, full_check=True)
    for before, after in zip(*(ReferenceEvaluator(m).run(None, {"x": X}) for m in (model, result)), strict=True):
        assert np.array_equal(before, after)
    return result


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_convolution_becomes_one_for_each_part() -> None:
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    model = model_of([conv, split("y", ["p", "q"], 1)], ["p", "q"], w=weights(6, 4, 3, 3), b=weights(6))
    result = rewritten(model)
    assert kinds(result) == ["Conv", "Conv"]
    assert {x.name: tuple(x.dims) for x in result.graph.initializer} == {
        "w.0": (3, 4, 3, 3), "b.0": (3,), "w.1": (3, 4, 3, 3), "b.1": (3,)
    }  # fmt: skip


@pytest.mark.parametrize("axis", [3, -1])
@pytest.mark.parametrize("bias_first", [False, True])
def test_a_product_with_a_bias_becomes_one_for_each_part(axis: int, bias_first: bool) -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    total = helper.make_node("Add", ["b", "y"] if bias_first else ["y", "b"], ["z"])
    nodes = [product, total, split("z", ["p", "q", "r"], axis), helper.make_node("Relu", ["q"], ["s"])]
    result = rewritten(model_of(nodes, ["p", "s", "r"], w=weights(4, 15), b=weights(15)))
    assert kinds(result) == ["MatMul", "Add"] * 3 + ["Relu"]
    assert len(result.graph.initializer) == 6


def test_weights_that_others_read_stay() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), split("y", ["p", "q"], 3),
             helper.make_node("MatMul", ["x", "w"], ["z"])]  # fmt: skip
    result = rewritten(model_of(nodes, ["p", "q", "z"], w=weights(4, 6)))
    assert kinds(result) == ["MatMul"] * 3
    assert {x.name for x in result.graph.initializer} == {"w", "w.0", "w.1"}


def read_twice() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), split("y", ["p", "q"], 3),
             helper.make_node("Relu", ["y"], ["z"])]  # fmt: skip
    return model_of(nodes, ["p", "q", "z"], w=weights(4, 6))


def read_outside() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), split("y", ["p", "q"], 3)]
    return model_of(nodes, ["p", "q", "y"], w=weights(4, 6))


def split_into_rows() -> onnx.ModelProto:
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"]), split("y", ["p", "q"], 2)], ["p", "q"],
                    w=weights(4, 6))  # fmt: skip


def split_into_columns() -> onnx.ModelProto:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    return model_of([conv, split("y", ["p", "q"], -1)], ["p", "q"], w=weights(6, 4, 1, 1))


def split_unequally() -> onnx.ModelProto:
    cut = helper.make_node("Split", ["y", "sizes"], ["p", "q"], axis=3)
    sizes = np.array([2, 4])
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"]), cut], ["p", "q"], w=weights(4, 6), sizes=sizes)


def weights_that_are_computed() -> onnx.ModelProto:
    nodes = [helper.make_node("Abs", ["v"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"]),
             split("y", ["p", "q"], 3)]  # fmt: skip
    return model_of(nodes, ["p", "q"], v=weights(4, 6))


def no_layer() -> onnx.ModelProto:
    return model_of([helper.make_node("Relu", ["x"], ["y"]), split("y", ["p", "q"], 3)], ["p", "q"])


def weights_on_the_left() -> onnx.ModelProto:
    return model_of([helper.make_node("MatMul", ["w", "x"], ["y"]), split("y", ["p", "q"], 3)], ["p", "q"],
                    w=weights(6, 6))  # fmt: skip


def in_groups() -> onnx.ModelProto:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1], group=2)
    return model_of([conv, split("y", ["p", "q"], 1)], ["p", "q"], w=weights(8, 2, 1, 1))


def plus_one_number() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["y", "b"], ["z"]),
             split("z", ["p", "q"], 3)]  # fmt: skip
    return model_of(nodes, ["p", "q"], w=weights(4, 6), b=np.array(2, np.float32))


def plus_a_column() -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1]),
             helper.make_node("Add", ["y", "b"], ["z"]), split("z", ["p", "q"], 1)]  # fmt: skip
    return model_of(nodes, ["p", "q"], w=weights(6, 4, 1, 1), b=weights(6, 1, 1))


def into_parts_of_two_sizes() -> onnx.ModelProto:
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"]), split("y", ["p", "q"], 3)], ["p", "q"],
                    w=weights(4, 5))  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        read_twice,
        read_outside,
        split_into_rows,
        split_into_columns,
        split_unequally,
        weights_that_are_computed,
        no_layer,
        weights_on_the_left,
        in_groups,
        plus_one_number,
        plus_a_column,
        into_parts_of_two_sizes,
    ],
)
def test_anything_else_stays_as_it_is(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    assert rewritten(model) == model
