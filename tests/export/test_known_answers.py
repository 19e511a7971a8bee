"""Known answers of a small exact graph: the largest sum is met, and what rounds is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from condic.errors import InputError  # noqa: E402
from condic.export.known_answers import known_answer  # noqa: E402
from condic.export.source import SourceGraph  # noqa: E402
from condic.models.exact import ExactConv  # noqa: E402
from condic.runtime.manifest import TensorSpec  # noqa: E402

LIMITS = ((-100, 100), (-60, 20))


class Exact(torch.nn.Module):
    """Two frozen layers on two inputs of 20 channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = ExactConv(40, 4, relu=True), ExactConv(4, 2, relu=False)
        exponent = self.first.freeze(torch.zeros(40).double(), 100, out_exponent=torch.zeros(4).double())
        self.second.freeze(exponent, self.first.high, out_exponent=torch.zeros(2).double())

    def forward(self, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(torch.cat([a, b], dim=1), bias))


@pytest.fixture
def source() -> SourceGraph:
    inputs = (TensorSpec("a", 20, 1), TensorSpec("b", 20, 1), TensorSpec("bias", 4, 0))
    return SourceGraph("test", Exact(), inputs, (TensorSpec("out", 2, 1),), LIMITS)


def test_inputs_meet_the_largest_sum_of_the_first_layer_and_nothing_is_left_in_the_network(source: SourceGraph) -> None:
    arrays, answer, largest = known_answer(source, 4, torch.zeros(4))
    network = source.network
    row = network.first.bound.argmax()
    weights = network.first.int_weight[row, :, 0, 0].double().split(20)
    ends = [torch.stack([low * w, high * w]) for w, (low, high) in zip(weights, LIMITS, strict=True)]
    possible = sum(float(x.amax(dim=0).sum()) for x in ends) + float(network.first.int_bias[row])
    assert largest == possible / 2**24
    for name, limits in zip("ab", LIMITS, strict=True):
        assert set(arrays[name][:, :, ::2].flat) == set(limits)
    assert network.first.sums is None
    bias = torch.zeros(4)
    bias[row] = 12345
    assert known_answer(source, 4, bias)[2] == (possible + 12345) / 2**24
    assert network.first.int_weight.dtype == torch.float32
    assert known_answer(source, 4, torch.zeros(4))[1] == answer


def test_a_graph_that_rounds_is_refused(source: SourceGraph) -> None:
    source.network.register_forward_hook(lambda module, inputs, output: output / 3)
    with pytest.raises(InputError, match="graph test has `limits`, but float32 and float64 disagree"):
        known_answer(source, 4, torch.zeros(4))


def test_a_graph_whose_sums_are_too_large_is_refused(source: SourceGraph) -> None:
    with pytest.raises(InputError, match=r"graph test: sums of up to 1\d{7} are not exact in float32"):
        known_answer(source, 4, torch.full((4,), 2.0**24 - 1))


def test_a_network_may_return_a_tuple_and_begin_in_any_way(source: SourceGraph) -> None:
    answer = known_answer(source, 4, torch.zeros(4))[1:]
    source.network.register_forward_hook(lambda module, inputs, output: (output,))
    assert known_answer(source, 4, torch.zeros(4))[1:] == answer
    layer = ExactConv(20, 20, relu=False, depthwise=True)
    layer.freeze(torch.zeros(20).double(), 100, out_exponent=torch.zeros(20).double())
    inputs = (TensorSpec("a", 20, 1), TensorSpec("bias", 20, 0))
    depthwise = SourceGraph("depthwise", layer, inputs, (TensorSpec("out", 20, 1),), LIMITS[:1])
    assert 0 < known_answer(depthwise, 4, torch.zeros(20))[2] < 1
