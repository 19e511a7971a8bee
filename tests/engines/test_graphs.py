"""Graphs as TensorRT's parsers take them compute what the bundle's graphs compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from condic.engines.graphs import Blocks, blocks_of, for_tensorrt  # noqa: E402
from condic.errors import BackendError  # noqa: E402
from condic.runtime.bundle import Bundle, read_bundle  # noqa: E402
from condic.runtime.manifest import Graph  # noqa: E402

Make = Callable[..., bytes]


def run(graph: bytes, feeds: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {x.name: feeds[x.name] for x in session.get_inputs()})


def feeds_of(graph: Graph, alignment: int) -> dict[str, Any]:
    """Inputs for one window by two: integers for exact graphs, reals for others."""
    generator = np.random.default_rng(0)
    feeds = {}
    for x in graph.inputs:
        shape = (1, x.channels, *((alignment // x.stride, 2 * alignment // x.stride) if x.stride else (1, 1)))
        integers = generator.integers(-50, 50, shape).astype(np.float32)
        feeds[x.name] = integers if graph.precision == "exact" else generator.random(shape, np.float32)
    return feeds


@pytest.fixture(scope="module", params=["dcic-sgp-t", "cic-sr-t"])
def whole_bundle(request: pytest.FixtureRequest, data_folder: Path) -> Bundle:
    return read_bundle(data_folder / f"{request.param}.condic")


@pytest.mark.parametrize("attention", [True, False])
def test_every_graph_of_a_bundle_still_computes_the_same(whole_bundle: Bundle, attention: bool):
    for graph in whole_bundle.manifest.graphs:
        feeds = feeds_of(graph, whole_bundle.manifest.alignment)
        data = for_tensorrt(whole_bundle.graphs[graph.role], attention=attention)
        for before, after in zip(run(whole_bundle.graphs[graph.role], feeds), run(data, feeds), strict=True):
            if graph.precision == "exact":
                assert np.array_equal(before, after), graph.role
            else:
                assert np.abs(before - after).max() <= 1e-5 * max(1, np.abs(before).max()), graph.role


def test_weights_are_plain_and_no_type_is_unknown_to_a_parser(whole_bundle: Bundle):
    for data in whole_bundle.graphs.values():
        model = onnx.load_from_string(for_tensorrt(data, attention=True))
        types = {x.data_type for x in model.graph.initializer}
        assert types <= {TensorProto.FLOAT, TensorProto.INT64}
        read = {name for node in model.graph.node for name in node.input}
        assert {x.name for x in model.graph.initializer} <= read
        constants = {x.name for x in model.graph.initializer}
        assert not [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in constants]


def test_without_attention_the_opset_is_17(whole_bundle: Bundle):
    for data in whole_bundle.graphs.values():
        model = onnx.load_from_string(for_tensorrt(data, attention=False))
        assert [(x.domain, x.version) for x in model.opset_import] == [("", 17)]
        assert model.ir_version == 8


@pytest.fixture(scope="module")
def attending() -> Make:
    """`attending(heads, dtype)`: two `Attention` nodes, one after the other, in opset 23; k windows of 16 pixels."""

    def make(heads: int, dtype: Any, mask: bool = False) -> bytes:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        shape = ["windows", heads, 16, 8]
        bias = numpy_helper.from_array(np.random.default_rng(1).normal(size=(1, heads, 16, 16)).astype(dtype), "bias")
        inputs = [helper.make_tensor_value_info(name, kind, shape) for name in ("q", "k", "v")]
        nodes = []
        if mask:
            inputs.append(helper.make_tensor_value_info("mask", kind, ["windows", 1, 1, 16]))
            nodes.append(helper.make_node("Add", ["bias", "mask"], ["masked"]))
        name = "masked" if mask else "bias"
        nodes += [
            helper.make_node("Attention", ["q", "k", "v", name], ["middle"], "first", scale=0.3),
            helper.make_node("Attention", ["middle", "k", "v", name], ["y"], "second", scale=0.2),
        ]
        graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", kind, shape)], [bias])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
        return model.SerializeToString()

    return make


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize(
    ("heads", "dtype", "error"), [(1, np.float32, 1e-6), (3, np.float32, 1e-6), (3, np.float16, 4e-3)]
)
def test_attention_computes_the_same_in_one_piece_or_three(
    attending: Make, heads: int, dtype: Any, error: float, mask: bool, attention: bool
):
    graph = attending(heads, dtype, mask)
    generator = np.random.default_rng(0)
    feeds = {name: generator.normal(size=(5, heads, 16, 8)).astype(dtype) for name in ("q", "k", "v")}
    feeds["mask"] = np.where(generator.random((5, 1, 1, 16)) < 0.2, -30, 0).astype(dtype)
    (before,), (after,) = run(graph, feeds), run(for_tensorrt(graph, attention=attention), feeds)
    assert after.dtype == dtype
    assert np.abs(before.astype(np.float64) - after).max() < error


def test_blocks_are_counted_and_their_nodes_named(attending: Make):
    whole, apart = (for_tensorrt(attending(3, np.float16), attention=attention) for attention in (True, False))
    assert blocks_of(whole) == Blocks(whole=2, apart=0)
    assert blocks_of(apart) == Blocks(whole=0, apart=2)
    assert [n.name for n in onnx.load_from_string(whole).graph.node] == ["attention_0", "attention_1"]
    named = [n.name for n in onnx.load_from_string(apart).graph.node if n.name.startswith("attention_")]
    assert named == [f"attention_{k}.{part}" for k in range(2) for part in ("scores", "softmax", "values")]


def test_blocks_that_were_exported_in_three_pieces_are_named_too(whole_bundle: Bundle):
    found = 0
    for data in whole_bundle.graphs.values():
        graph = for_tensorrt(data, attention=True)
        names = [n.name for n in onnx.load_from_string(graph).graph.node if n.name.startswith("attention_")]
        assert len(names) == len(set(names)) == 3 * blocks_of(graph).apart
        found += len(names)
    assert found >= 6


def test_one_head_is_swapped_with_the_windows_and_more_are_not(attending: Make):
    def operators(heads: int) -> list[str]:
        model = onnx.load_from_string(for_tensorrt(attending(heads, np.float16), attention=True))
        return [n.op_type for n in model.graph.node]

    assert operators(3) == ["Attention", "Attention"]
    assert operators(1).count("Transpose") == 10


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 1e-6), (np.float16, 4e-3)])
def test_gelu_is_written_out_for_old_parsers(approximate: str, dtype: Any, error: float):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = (helper.make_tensor_value_info(name, kind, [1, 99]) for name in "xy")
    nodes = [helper.make_node("Identity", ["x"], ["z"]),
             helper.make_node("Gelu", ["z"], ["y"], "gelu", approximate=approximate)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    data = for_tensorrt(model.SerializeToString(), attention=False)
    assert "Gelu" not in [n.op_type for n in onnx.load_from_string(data).graph.node]
    values = np.linspace(-6, 6, 99, dtype=dtype).reshape(1, -1)
    (before,), (after,) = run(model.SerializeToString(), {"x": values}), run(data, {"x": values})
    assert after.dtype == dtype
    assert np.abs(before.astype(np.float64) - after).max() < error


def of_nodes(*nodes: Any, opset: int = 20, constants: dict[str, Any] | None = None) -> bytes:
    """A graph from x to y, float32 [1, 4, 6, 5] or what the nodes make of it."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 5])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])
    stored = [numpy_helper.from_array(np.asarray(x), name) for name, x in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [value], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("attention", [True, False])
def test_a_softmax_that_is_no_attention_is_left_alone(attention: bool):
    graph = of_nodes(
        helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Softmax", ["r"], ["s"], axis=1),
        helper.make_node("Mul", ["s", "r"], ["m"]), helper.make_node("Add", ["s", "m"], ["y"]),
    )  # fmt: skip
    data, feeds = (
        for_tensorrt(graph, attention=attention),
        {"x": np.random.default_rng(1).random((1, 4, 6, 5), np.float32)},
    )
    assert blocks_of(data) == Blocks(0, 0)
    assert np.array_equal(run(graph, feeds)[0], run(data, feeds)[0])


@pytest.mark.parametrize("as_node", [True, False])
def test_axes_of_reductions_are_attributes_in_an_old_opset(as_node: bool):
    mean = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)
    axes = np.array([1])
    if as_node:
        graph = of_nodes(helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(axes)), mean)
    else:
        graph = of_nodes(mean, constants={"axes": axes})
    data, feeds = for_tensorrt(graph, attention=False), {"x": np.random.default_rng(1).random((1, 4, 6, 5), np.float32)}
    assert onnx.load_from_string(data).opset_import[0].version == 17
    (found,) = run(data, feeds)
    assert found.shape == (1, 1, 6, 5)
    assert np.array_equal(found, run(graph, feeds)[0])


def test_what_an_old_opset_does_not_have_is_told():
    with pytest.raises(BackendError, match=r"cannot be written in opset 17, which this TensorRT reads: .*Mish"):
        for_tensorrt(of_nodes(helper.make_node("Mish", ["x"], ["y"])), attention=False)
