"""Steps that are captured: PyTorch's tracer stands in for CUDA's graphs: it too repeats kernels and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from condic.models.cic_sr import CicSr
from condic.models.dcic_sgp import DcicSgp, Output
from condic.models.quality import LEVELS
from condic.training.calibration import calibrate
from condic.training.data import CropSampler
from condic.training.soap import Soap
from condic.training.step import WARM_UP, Capture, Report, Step, cuda_graph, side_stream

_CPU = torch.device("cpu")
_HOST = {"aten._local_scalar_dense", "aten.lift_fresh_copy", "aten.nonzero", "aten.masked_select", "aten._unique2"}
"""Operators that wait for a device, or bring it what only the host has."""


class Fragile(DcicSgp):
    """Its pictures can be spoilt from outside."""

    spoilt = torch.ones(())

    def forward(self, image: Tensor, level: Tensor) -> Output:
        output = super().forward(image, level)
        return replace(output, image=output.image * self.spoilt)


def _sampler(side: int) -> CropSampler:
    rng = np.random.default_rng(1)
    return CropSampler([rng.integers(0, 256, (side, side, 3), np.uint8)], side, 2, LEVELS, 0)


class Run:
    """A model of preset t, and steps of it that are captured if `captured`."""

    def __init__(
        self, model: nn.Module, *, captured: bool | Capture, loss: str = "mse", side: int = 128, device: str = "cpu"
    ) -> None:
        self.model, self.side = model.to(device, memory_format=torch.channels_last).train(), side
        model.spoilt = torch.ones((), device=device)
        optimiser = Soap([{"params": list(model.parameters())}], betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.optimiser = optimiser
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.operators: set[str] = set()
        self.captures = 0
        self._step = Step(
            model, optimiser, self.average, loss=loss, prior_share=None, batch=(2, side),
            capture=self._trace if captured is True else captured or None,
        )  # fmt: skip

    def take(self, k: int, *, entropy_only: bool = False, renew: bool = False) -> Report:
        """Step k."""
        torch.manual_seed(k)
        rates = [1e-3 * (1 + k)]
        self._step.run(*_sampler(self.side).at(k), rates, 0.5 + 0.05 * k, entropy_only=entropy_only)
        if renew:
            self.optimiser.renew_bases()
        return self._step.report()

    def state(self) -> dict[str, Tensor]:
        """All that lasts from step to step."""
        moments = {f"{k}.{name}": value for k, state in enumerate(self.optimiser.state.values())
                   for name, value in state.items() if isinstance(value, Tensor)}  # fmt: skip
        averages = {f"average {name}": value for name, value in self.average.items()}
        return {**self.model.state_dict(), **averages, **moments}

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.state().values()
        for value in vars(self._step).values():
            for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
                if isinstance(item, Tensor):
                    yield item

    def _trace(self, work: Callable[[], None]) -> Callable[[], None]:
        """Unlike a CUDA graph, tracing also does the work: that is undone."""
        before = [(tensor, tensor.detach().clone()) for tensor in self._tensors()]
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


def _dcic_sgp() -> nn.Module:
    return DcicSgp("t")


def _integers() -> nn.Module:
    model = DcicSgp("t")
    calibrate(model, _sampler(128), _CPU, batches=1)
    model.freeze()
    return model


def _cic_sr() -> nn.Module:
    model = CicSr("t")
    model.begin("joint")
    return model


def _both(build: Callable[[], nn.Module], capture: Capture | bool = True, **options: object) -> tuple[Run, Run]:
    """A run whose steps are not captured and one whose steps are."""
    runs = []
    for captured in (False, capture):
        torch.manual_seed(0)
        runs.append(Run(build(), captured=captured, **options))
    return tuple(runs)


def _check_equal(plain: Run, captured: Run, *, entropy_only: bool) -> None:
    """Takes steps, of which both have to make the same."""
    before = _flat(plain.model.state_dict())
    for k in range(WARM_UP + 3):
        renew = k == 2  # later, bases of directions without gradients would show how these are rounded
        reports = [run.take(k, entropy_only=entropy_only, renew=renew) for run in (plain, captured)]
        assert reports[0].means == pytest.approx(reports[1].means, rel=2e-3)
    for ours, theirs in ((plain.average, captured.average), (plain.model.state_dict(), captured.model.state_dict())):
        assert (_flat(theirs) - _flat(ours)).norm() < 0.1 * (_flat(ours) - before).norm()


def _flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten().float() for tensor in state.values()])


@pytest.mark.parametrize(
    ("build", "options", "entropy_only"),
    [
        pytest.param(_dcic_sgp, {}, False, id="dcic-sgp"),
        pytest.param(_dcic_sgp, {"loss": "ms-ssim", "side": 256}, False, id="dcic-sgp, MS-SSIM"),
        pytest.param(_dcic_sgp, {}, True, id="dcic-sgp, entropy path"),
        pytest.param(_integers, {}, True, id="dcic-sgp, integers"),
        pytest.param(_cic_sr, {}, False, id="cic-sr"),
    ],
)
def test_captured_steps_ask_nothing_of_the_host_and_do_what_others_do(
    build: Callable[[], nn.Module], options: dict, entropy_only: bool
) -> None:
    if options.get("loss") == "ms-ssim":
        pytest.importorskip("pytorch_msssim")
    plain, captured = _both(build, **options)
    _check_equal(plain, captured, entropy_only=entropy_only)
    assert captured.captures == 1
    assert not captured.operators & _HOST


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
@pytest.mark.parametrize("build", [_dcic_sgp, _cic_sr])
def test_cuda_graphs_do_what_plain_steps_do(build: Callable[[], nn.Module]) -> None:
    with side_stream(torch.device("cuda")):
        _check_equal(*_both(build, cuda_graph, device="cuda"), entropy_only=False)


@pytest.mark.parametrize("captured", [False, True])
def test_a_step_whose_gradients_are_not_finite_changes_nothing(captured: bool) -> None:
    torch.manual_seed(0)
    run = Run(Fragile("t"), captured=captured)
    for k in range(WARM_UP + 1):
        assert run.take(k).in_a_row == 0
    before = {name: value.clone() for name, value in run.state().items() if not name.startswith("average")}
    run.model.spoilt.fill_(torch.inf)
    assert [run.take(k) for k in (7, 8)] == [Report({}, 1, 1), Report({}, 2, 2)]
    assert all(torch.equal(value, run.state()[name]) for name, value in before.items())
    run.model.spoilt.fill_(1)
    after = run.take(9)
    assert (after.skipped, after.in_a_row) == (2, 0)
    assert after.means["psnr"] > 0
    assert any(not torch.equal(value, run.state()[name]) for name, value in before.items())


class Counted:
    """Captures what simply runs again, and counts how often."""

    captures = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        return work


def test_steps_that_are_skipped_at_the_very_start_harm_nothing() -> None:
    torch.manual_seed(0)
    capture = Counted()
    run = Run(Fragile("t"), captured=capture)
    for k, spoilt in enumerate((torch.nan, 1.0, torch.nan, 1.0, torch.nan)):
        run.model.spoilt.fill_(spoilt)
        run.take(k)
    assert capture.captures == 0  # only two were taken
    run.model.spoilt.fill_(1)
    run.take(5)
    assert capture.captures == 1
    assert all(value.isfinite().all() for value in run.state().values())


def test_another_kind_of_step_is_captured_anew() -> None:
    torch.manual_seed(0)
    capture = Counted()
    run = Run(DcicSgp("t"), captured=capture)
    for k, entropy_only in enumerate([True] * (WARM_UP + 1) + [False] * (WARM_UP + 1)):
        image_part = run.model.synthesis.head.conv.weight.clone()
        run.take(k, entropy_only=entropy_only)
        assert torch.equal(image_part, run.model.synthesis.head.conv.weight) == entropy_only
    assert capture.captures == 2
