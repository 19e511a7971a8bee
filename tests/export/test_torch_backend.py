import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from condic.errors import BackendError
from condic.export.onnx_graphs import export_graph
from condic.export.source import SourceGraph
from condic.export.torch_backend import TorchBackend, _unread_after, unknown_operators
from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph, TensorSpec


def test_values_are_let_go_after_the_last_node_that_reads_them() -> None:
    nodes = [
        (abs, ["x", "w"], ["a", "unused"]),
        (abs, ["a", ""], ["b"]),
        (abs, ["a", "b", "x"], ["y"]),
        (abs, ["y", "b"], ["z"]),
    ]
    assert _unread_after(nodes, {"y", "z"}) == [["unused", "w"], [], ["a", "x"], ["b"]]


def test_an_operator_that_the_backend_lacks_is_named() -> None:
    node = helper.make_node("Celu", ["x"], ["y"])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "g", [value], []))
    assert unknown_operators(model) == ["Celu"]
    graph = Graph("g", "g.onnx", "float", (), (), 0, 0)
    bundle = Bundle(None, {}, {"g": model.SerializeToString()}, "test")
    with pytest.raises(BackendError, match="operator Celu is not known to the torch backend"):
        TorchBackend(BackendOptions()).load(graph, bundle)


def test_threads_are_those_of_the_process() -> None:
    before = torch.get_num_threads()
    try:
        TorchBackend(BackendOptions(threads=before + 1))
        assert torch.get_num_threads() == before + 1
        TorchBackend(BackendOptions())
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "network",
    [
        torch.nn.Conv2d(2, 3, 3, padding=2, dilation=2),
        torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"),
        torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 2)), torch.nn.Conv2d(2, 3, (3, 2))),
        torch.nn.ConvTranspose2d(2, 3, 3, padding=1),
        torch.nn.ConvTranspose2d(2, 3, 5, padding=4, dilation=2),
    ],
)
def test_convolutions_of_all_kinds_are_those_of_onnxruntime(network: torch.nn.Module) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    x, y = TensorSpec("x", 2, 1), TensorSpec("y", 3, 1)
    model = export_graph(SourceGraph("g", network.eval(), (x,), (y,)), 8).SerializeToString()
    values = np.random.default_rng(0).normal(size=(1, 2, 16, 24)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"x": values})
    run = TorchBackend(BackendOptions()).load(
        Graph("g", "g.onnx", "float", (x,), (y,), 0, 0), Bundle(None, {}, {"g": model}, "test")
    )
    (found,) = run([values])
    assert np.abs(found - expected).max() < 1e-5


X = np.random.default_rng(1).normal(size=(1, 8, 4, 6)).astype(np.float32)
ROW = np.linspace(-1, 2, 6, dtype=np.float32)


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs"),
    [
        ("Attention", {"scale": 0.3}, (X, 2 * X, 3 * X, X @ X.swapaxes(2, 3))),
        ("DepthToSpace", {"blocksize": 2}, (X,)),
        ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, (X,)),
        ("Div", {}, (np.array([-7, 7, -1]), np.array([2, 2, 3]))),
        ("Gelu", {"approximate": "tanh"}, (X,)),
        ("LayerNormalization", {"epsilon": 0.5}, (X, ROW, ROW[::-1])),
        ("PRelu", {}, (X, ROW)),
        ("Pad", {"mode": "constant"}, (X, [0, 0, 1, 2, 0, 0, 3, 0], np.float32(5))),
        ("Pad", {"mode": "reflect"}, (X, [0, 0, 1, 2, 0, 0, 3, 0])),
        ("Shape", {"start": 1, "end": 3}, (X,)),
        ("Slice", {}, (X, [1, 5], [99, -99], [-2, 1], [2, -2])),
        ("SpaceToDepth", {"blocksize": 2}, (X,)),
        ("Unsqueeze", {}, (X, [-1, 0])),
    ],
)
def test_operators_give_what_onnx_says(operator: str, attributes: dict, inputs: tuple) -> None:
    names = ["x", "a", "b", "c", "d"][: len(inputs)]
    x, *others = (np.asarray(value) for value in inputs)
    constants = [numpy_helper.from_array(value, name) for name, value in zip(names[1:], others, strict=True)]
    value = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    result = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    node = helper.make_node(operator, names, ["y"], **attributes)
    model = helper.make_model(
        helper.make_graph([node], "g", [value], [result], constants), opset_imports=[helper.make_opsetid("", 23)]
    )
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    graph = Graph("g", "g.onnx", "float", (TensorSpec("x", 1, 1),), (TensorSpec("y", 1, 1),), 0, 0)
    bundle = Bundle(None, {}, {"g": model.SerializeToString()}, "test")
    (found,) = TorchBackend(BackendOptions()).load(graph, bundle)([x])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
