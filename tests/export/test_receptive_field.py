"""Halos are measured on the networks themselves."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from condic.errors import InputError  # noqa: E402
from condic.export.receptive_field import halo  # noqa: E402
from condic.export.source import SourceGraph  # noqa: E402
from condic.runtime.manifest import TensorSpec  # noqa: E402

_IN, _OUT = TensorSpec("in", 1, 1), TensorSpec("out", 1, 1)


def _graph(network: torch.nn.Module) -> SourceGraph:
    return SourceGraph("test", network, (_IN,), (_OUT,))


@pytest.mark.parametrize(("side", "windows"), [(1, 0), (3, 1), (9, 1), (11, 2), (25, 3)])
@pytest.mark.parametrize("shape", ["square", "wide", "high"])
def test_a_convolution_reaches_as_far_as_its_kernel(side, windows, shape):
    kernel = (1 if shape == "wide" else side, 1 if shape == "high" else side)
    layer = torch.nn.Conv2d(1, 1, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    torch.nn.init.ones_(layer.weight)
    assert halo(_graph(layer), 4) == windows


@pytest.mark.parametrize("tap", [0, -1])
def test_the_weakest_tap_counts_on_either_side(tap):
    layer = torch.nn.Conv2d(1, 1, 11, padding=5)
    torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[..., 5], layer.weight[..., tap] = 1, 1e-4
    assert halo(_graph(layer), 4) == 2


def test_outputs_that_always_add_up_to_nothing_depend_on_their_inputs():
    class Differences(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            windows = super().forward(x).unflatten(-1, (-1, 4))
            return (windows - windows.flip(-1)).flatten(-2)

    layer = Differences(1, 1, 9, padding=4)
    torch.nn.init.ones_(layer.weight)
    assert halo(_graph(layer), 4) == 1


def test_strides_and_inputs_without_extent_are_allowed_for():
    class Scaled(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * gain

    specs = (_IN, TensorSpec("gain", 1, 0)), (TensorSpec("out", 1, 2),)
    assert halo(SourceGraph("test", Scaled(1, 1, 9, stride=2, padding=4), *specs), 4) == 1


def test_what_ignores_its_input_needs_no_halo():
    layer = torch.nn.Conv2d(1, 1, 9, padding=4)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.ones_(layer.bias)
    assert halo(_graph(layer), 4) == 0


def test_a_network_that_looks_at_all_of_an_image_is_refused():
    class Normalised(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.mean()

    with pytest.raises(InputError, match=r"graph test: its outputs reach 23 times 4 pixels .* give it the halo WHOLE"):
        halo(_graph(Normalised()), 4)


def test_what_hides_behind_a_rounding_counts():
    class Rounded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = (torch.nn.Conv2d(1, 1, 11, padding=5) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.after(torch.round(self.before(x)))

    torch.manual_seed(0)
    assert halo(_graph(Rounded()), 4) == 3


def test_what_has_no_extent_depends_on_all_of_an_image_or_on_nothing():
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True)

    level = TensorSpec("level", 1, 0)
    assert halo(SourceGraph("test", torch.nn.Conv2d(1, 1, 1), (level,), (TensorSpec("gain", 1, 0),)), 4) == 0
    with pytest.raises(InputError, match="give it the halo WHOLE"):
        halo(SourceGraph("test", Mean(), (_IN,), (TensorSpec("mean", 1, 0),)), 4)


def test_halos_are_measured_where_no_gradients_are_kept():
    with torch.no_grad():
        assert halo(_graph(torch.nn.Conv2d(1, 1, 3, padding=1)), 4) == 1
