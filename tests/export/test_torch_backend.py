import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from onnx import TensorProto, helper

from condic.errors import BackendError
from condic.export.torch_backend import TorchBackend, _unread_after, unknown_operators
from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph


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
