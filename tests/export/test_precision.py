"""How weights are stored, on graphs small enough to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from condic.export.precision import store_exact, store_float, to_half  # noqa: E402


def network(weight: np.ndarray, bias: np.ndarray, layers: int = 1) -> Any:
    """`layers` 1x1 convolutions with a LeakyRelu after each but the last."""
    nodes, name = [], "x"
    for k in range(layers):
        last = k == layers - 1
        nodes.append(helper.make_node("Conv", [name, f"weight{k}", f"bias{k}"], ["y" if last else f"c{k}"]))
        if not last:
            nodes.append(helper.make_node("LeakyRelu", [f"c{k}"], [f"r{k}"], alpha=0.1))
            name = f"r{k}"
    shape = [1, len(bias), "rows", "columns"]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(values.astype(np.float32), f"{kind}{k}")
            for k in range(layers)
            for kind, values in (("weight", weight), ("bias", bias))
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def stored(model: Any) -> dict[str, np.dtype]:
    return {t.name: numpy_helper.to_array(t).dtype for t in model.graph.initializer}


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(-50, 50, (1, 8, 3, 5)).astype(np.float32)


def test_exact_weights_are_stored_as_integers_and_compute_the_same(x: np.ndarray) -> None:
    generator = np.random.default_rng(1)
    weight, bias = generator.integers(-2047, 2048, (8, 8, 1, 1)), generator.integers(-(2**23), 2**23, 8)
    expected = run(network(weight, bias), x)
    model = network(weight, bias)
    store_exact(model)
    assert set(stored(model).values()) == {np.dtype(np.int16), np.dtype(np.int32)}
    assert np.array_equal(run(model, x), expected)
    assert np.array_equal(expected, np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x.astype(int)) + bias[:, None, None])


@pytest.mark.parametrize("wrong", [0.5, 1000.5, 40000, np.nan])
def test_weights_that_are_no_integers_of_16_bits_are_refused(wrong: float) -> None:
    weight = np.ones((8, 8, 1, 1))
    weight[3, 2] = wrong
    with pytest.raises(ValueError, match="not integers that int16 holds"), np.errstate(invalid="ignore"):
        store_exact(network(weight, np.zeros(8)))


def test_float_weights_are_stored_in_half_and_computed_in_full_precision(x: np.ndarray) -> None:
    weight = np.random.default_rng(2).normal(size=(8, 8, 1, 1)).astype(np.float32)
    bias = np.zeros(8, np.float32)
    model = network(weight, bias)
    store_float(model)
    assert set(stored(model).values()) == {np.dtype(np.float16), np.dtype(np.float32)}  # 8 biases stay as they are
    expected = run(network(weight.astype(np.float16), bias), x)
    assert np.array_equal(run(model, x), expected)


def test_half_precision_keeps_inputs_outputs_and_the_last_convolution_in_full(x: np.ndarray) -> None:
    weight = np.random.default_rng(3).normal(size=(8, 8, 1, 1)).astype(np.float32) / 4
    model = network(weight, np.ones(8), layers=3)
    expected = run(model, x)
    to_half(model)
    result = run(model, x)
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 0.02 * np.abs(expected).max()
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [types.get(node.output[0]) for node in convolutions[:-1]] == [TensorProto.FLOAT16] * 2
    assert convolutions[-1].output[0] == "y"
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_constant_of_both_precisions_is_there_in_both(x: np.ndarray) -> None:
    model = network(np.eye(8).reshape(8, 8, 1, 1), np.zeros(8), layers=2)
    model.graph.node[0].input[2] = "bias1"  # also that of the last convolution, which stays float32
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "bias0"))
    expected = run(model, x)
    to_half(model)
    assert stored(model)["bias1"] == np.float32
    assert stored(model)["bias1_f16"] == np.float16
    assert np.array_equal(run(model, x), expected)


def test_a_product_with_weights_is_a_layer_and_one_of_activations_is_not(x: np.ndarray) -> None:
    weight = np.random.default_rng(4).normal(size=(5, 5)).astype(np.float32) / 8
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "last"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 3, 5])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 3, 3])]
    constants = [numpy_helper.from_array(weight, "first"), numpy_helper.from_array(weight[:3, :3].copy(), "last")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    expected = run(model, x / 50)
    to_half(model)
    assert stored(model) == {"first": np.float16, "last": np.float32}
    result = run(model, x / 50)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert types["c"] == TensorProto.FLOAT16
    assert np.abs(result - expected).max() < 0.02 * np.abs(expected).max()


def model_of(nodes: list[Any], outputs: list[str], rank: int = 4, **constants: np.ndarray) -> Any:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 3, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in outputs],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def halved(model: Any, x: np.ndarray) -> dict[str, int]:
    """Makes a model half precision, with nearly the same result; the types of what it computes."""
    expected = run(model, x)
    to_half(model)
    assert np.abs(run(model, x) - expected).max() < 0.01 * np.abs(expected).max()
    return {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}


EYE = np.eye(8).reshape(8, 8, 1, 1)


@pytest.mark.parametrize(
    ("kind", "integers"),
    [("Reshape", [[1, 8, 3, 5]]), ("Slice", [[0], [8], [1]]), ("Split", [[1]]), ("Unsqueeze", [[0]])],
)
def test_sizes_and_places_stay_integers_before_and_after_the_last_layer(
    x: np.ndarray, kind: str, integers: list[list[int]]
) -> None:
    names = [f"i{k}" for k in range(len(integers))]
    nodes = [
        helper.make_node("Constant", [], [name], value_ints=ints) for name, ints in zip(names, integers, strict=True)
    ]
    for k, (given, result) in enumerate((("x", "b"), ("b", "y"))):
        nodes += [helper.make_node("MatMul", [given, f"w{k}"], [f"a{k}"]),
                  helper.make_node(kind, [f"a{k}", *names], [result])]  # fmt: skip
    types = halved(model_of(nodes, ["y"], 6 if kind == "Unsqueeze" else 4, w0=np.eye(5), w1=np.eye(5)), x)
    assert types["a0"] == types["b"] == TensorProto.FLOAT16
    assert types["a1"] == TensorProto.FLOAT


def test_constants_have_the_precision_of_what_they_go_into(x: np.ndarray) -> None:
    quarter = numpy_helper.from_array(np.array(0.25, np.float32))
    nodes = [helper.make_node("Constant", [], ["half"], value_float=0.5),
             helper.make_node("Constant", [], ["quarter"], value=quarter),
             helper.make_node("Constant", [], ["last"], value_float=0.1)]  # fmt: skip
    for given, layer, result in (("x", "Mul half", "a"), ("a", "Conv w", "b"), ("b", "Mul quarter", "c"),
                                 ("c", "Conv w", "d"), ("d", "Mul last", "y")):  # fmt: skip
        kind, constant = layer.split()
        nodes.append(helper.make_node(kind, [given, constant], [result]))
    types = halved(model_of(nodes, ["y"], w=EYE), x)
    assert [types[name] for name in ("half", "quarter", "last")] == [TensorProto.FLOAT16] * 2 + [TensorProto.FLOAT]


def test_a_transposed_convolution_is_a_last_layer(x: np.ndarray) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("ConvTranspose", ["a", "v"], ["y"])]
    assert halved(model_of(nodes, ["y"], w=EYE, v=EYE), x)["a"] == TensorProto.FLOAT16


def test_an_output_that_the_graph_reads_too_is_computed_in_half(x: np.ndarray) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"]),
             helper.make_node("Conv", ["b", "w"], ["y"])]  # fmt: skip
    model = model_of(nodes, ["y", "a"], w=EYE)
    assert halved(model, x)["a_f16"] == TensorProto.FLOAT16
    assert [node.op_type for node in model.graph.node if "a_f16" in node.input] == ["Add", "Cast"]
