import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import numpy as np
import torch
from onnx import TensorProto, helper

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
        torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.Conv2d(2, 3, 2)),
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
