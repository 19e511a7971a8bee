"""Steps that are captured: PyTorch's tracer stands in for CUDA's graphs: it too repeats kernels and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from bench import CheckError
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from training_checks import Steps, check_capture, cic_sr, dcic_sgp, sampler

from condic.models.dcic_sgp import DcicSgp
from condic.models.output import Output
from condic.training.calibration import calibrate
from condic.training.losses import rate_distortion
from condic.training.step import WARM_UP, Report

_CPU = torch.device("cpu")
_HOST = {"aten._local_scalar_dense", "aten.lift_fresh_copy", "aten.nonzero", "aten.masked_select", "aten._unique2"}
"""Operators that wait for a device, or bring it what only the host has."""


class Traced:
    """Captures by tracing. Unlike capturing a CUDA graph, that also does the work: it is undone."""

    def __init__(self) -> None:
        self.operators: set[str] = set()
        self.captures = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        before = [(tensor, tensor.detach().clone()) for tensor in _tensors(work.__self__)]
        graph = make_fx(lambda: (work(), torch.zeros(()))[1])()
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        self.operators = {str(node.target).rpartition(".")[0] for node in graph.graph.nodes}
        self.captures += 1

        def replay() -> None:
            with torch.no_grad():
                graph()

        return replay


class Counted:
    """Captures what simply runs again, and counts how often."""

    captures = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        return work


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors that a step, its model and its optimiser hold."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.state_dict().values()
    elif isinstance(value, torch.optim.Optimizer):
        for state in value.state.values():
            yield from _tensors(state)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__dict__"):
        yield from _tensors(list(vars(value).values()))


class Fragile(DcicSgp):
    """Its pictures can be spoilt from outside."""

    spoilt: Tensor

    def forward(self, image: Tensor, level: Tensor) -> Output:
        assert torch.is_autocast_enabled("cpu")
        output = super().forward(image, level)
        return replace(output, image=output.image * self.spoilt)


def _fragile() -> Fragile:
    torch.manual_seed(0)
    model = Fragile("t")
    model.spoilt = torch.ones(())
    return model


def _integers() -> nn.Module:
    model = DcicSgp("t")
    calibrate(model, sampler(128), _CPU, batches=1)
    model.freeze()
    return model


def _lasting(steps: Steps) -> list[Tensor]:
    parts = (steps.model, steps.optimiser, steps.average)
    return [tensor.clone() for part in parts for tensor in _tensors(part)]


@pytest.mark.parametrize(
    ("build", "options"),
    [
        pytest.param(dcic_sgp, {}, id="dcic-sgp"),
        pytest.param(dcic_sgp, {"loss": "ms-ssim", "side": 256}, id="dcic-sgp, MS-SSIM"),
        pytest.param(dcic_sgp, {"entropy_only": True}, id="dcic-sgp, entropy path"),
        pytest.param(_integers, {"entropy_only": True}, id="dcic-sgp, integers"),
        pytest.param(cic_sr, {}, id="cic-sr"),
    ],
)
def test_captured_steps_ask_nothing_of_the_host_and_do_what_others_do(
    build: Callable[[], nn.Module], options: dict
) -> None:
    if options.get("loss") == "ms-ssim":
        pytest.importorskip("pytorch_msssim")
    capture = Traced()
    check_capture(build, capture, **options)
    assert capture.captures == 1
    assert not capture.operators & _HOST


@pytest.mark.parametrize("what", ["_pixels", "_levels", "_rates", "_pull"])
def test_steps_that_do_not_see_what_changes_are_found(what: str) -> None:
    def capture(work: Callable[[], None]) -> Callable[[], None]:
        seen = list(_tensors(getattr(work.__self__, what)))
        first = [tensor.clone() for tensor in seen]

        def replay() -> None:
            for tensor, value in zip(seen, first, strict=True):
                tensor.copy_(value)
            work()

        return replay

    with pytest.raises(CheckError):
        check_capture(dcic_sgp, capture)


def test_the_backward_pass_of_ms_ssim_asks_nothing_of_the_host() -> None:
    """What the tracer does not see: derivatives that ask the host do it another way where they are traced."""
    pytest.importorskip("pytorch_msssim")
    x, image = torch.rand(2, 3, 192, 192, requires_grad=True), torch.rand(2, 3, 192, 192)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        output = Output(x, x, {"main": torch.zeros(2)})
        rate_distortion(output, image, torch.tensor([3, 60]), "ms-ssim").total.backward()
    assert not {event.key.replace("::", ".") for event in profile.key_averages()} & _HOST


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
@pytest.mark.parametrize("build", [dcic_sgp, cic_sr])
def test_cuda_graphs_do_what_plain_steps_do(build: Callable[[], nn.Module]) -> None:
    check_capture(build, device="cuda")


@pytest.mark.parametrize("capture", [None, Traced()])
def test_a_step_whose_gradients_are_not_finite_changes_nothing(capture: Traced | None) -> None:
    steps = Steps(_fragile(), capture)
    for k in range(WARM_UP + 1):
        assert steps.report(k).in_a_row == 0
    before = _lasting(steps)
    steps.model.spoilt.fill_(torch.inf)
    assert [steps.report(k) for k in (7, 8)] == [Report({}, 1, 1), Report({}, 2, 2)]
    assert all(map(torch.equal, before, _lasting(steps)))
    steps.model.spoilt.fill_(1)
    after = steps.report(9)
    assert (after.skipped, after.in_a_row) == (2, 0)
    assert after.means["psnr"] > 0
    assert not all(map(torch.equal, before, _lasting(steps)))


def test_the_pictures_of_steps_of_the_entropy_path_are_previews() -> None:
    means = Steps(dcic_sgp()).report(0, entropy_only=True).means
    assert 0 < means["psnr"] < 30
    streams = [value for name, value in means.items() if name not in ("psnr", "loss")]
    assert means["loss"] < 1.5 * sum(streams), "no distortion; rates are weighed by level"


def test_a_batch_beyond_all_others_moves_no_further_than_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, norms = Steps(_fragile()), list[float]()
    parameters, step = list(steps.model.parameters()), steps.optimiser.step

    def note() -> None:
        norms.append(float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))
        step()

    monkeypatch.setattr(steps.optimiser, "step", note)
    for k, spoilt in enumerate((1.0, 1e3)):
        steps.model.spoilt.fill_(spoilt)
        assert steps.report(k).skipped == 0
    assert norms == pytest.approx([1, 1], rel=1e-3)


def test_steps_that_are_skipped_at_the_very_start_harm_nothing() -> None:
    capture = Counted()
    steps = Steps(_fragile(), capture)
    for k, spoilt in enumerate((torch.nan, 1.0, torch.nan, 1.0, torch.nan)):
        steps.model.spoilt.fill_(spoilt)
        steps.take(k)
    assert capture.captures == 0  # only two were taken
    steps.model.spoilt.fill_(1)
    steps.take(5)
    assert capture.captures == 1
    assert all(value.isfinite().all() for value in _lasting(steps))


def test_another_kind_of_step_is_captured_anew() -> None:
    torch.manual_seed(0)
    capture = Counted()
    steps = Steps(dcic_sgp(), capture)
    for k, entropy_only in enumerate([True] * (WARM_UP + 1) + [False] * (WARM_UP + 1)):
        image_part = steps.model.synthesis.head.conv.weight.clone()
        steps.take(k, entropy_only=entropy_only)
        assert torch.equal(image_part, steps.model.synthesis.head.conv.weight) == entropy_only
    assert capture.captures == 2
