"""Steps of condic-train that are captured, against those that just run; and how many crops a second they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from bench import require
from torch import Tensor, nn

from condic.models.cic_sr import CicSr
from condic.models.dcic_sgp import DcicSgp
from condic.models.quality import LEVELS
from condic.training.data import CropSampler
from condic.training.soap import REFRESH_EVERY, Soap
from condic.training.step import WARM_UP, Capture, Report, Step, cuda_graph, side_stream


def sampler(side: int, batch: int = 2) -> CropSampler:
    """Crops of noise."""
    image = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    return CropSampler([image], side, batch, LEVELS, 0)


def dcic_sgp(preset: str = "t") -> nn.Module:
    """The codec with random weights."""
    return DcicSgp(preset)


def cic_sr(preset: str = "t") -> nn.Module:
    """The codec with random weights, all of which are trained."""
    model = CicSr(preset)
    model.begin("joint")
    return model


class Steps:
    """A model, and steps that train it."""

    def __init__(
        self,
        model: nn.Module,
        capture: Capture | None = None,
        *,
        loss: str = "mse",
        side: int = 128,
        batch: int = 2,
        device: str = "cpu",
        compile_model: bool = False,
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.optimiser = Soap([{"params": list(model.parameters())}], betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.sampler = sampler(side, batch)
        self.step = Step(
            model, self.optimiser, self.average, loss=loss, prior_share=None, batch=(batch, side), capture=capture,
            compile_model=compile_model,
        )  # fmt: skip

    @cached_property
    def _batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """A few, made once: a run has threads for that."""
        return [self.sampler.at(k) for k in range(4)]

    def take(self, k: int, *, entropy_only: bool = False, renew: bool = False) -> None:
        """Step k, whose noise depends on k alone."""
        torch.manual_seed(k)
        self.step.run(*self.sampler.at(k), [1e-3 * (1 + k)], 0.5 + 0.05 * k, entropy_only=entropy_only)
        if renew:
            self.optimiser.renew_bases()

    def take_over(self, other: Steps) -> None:
        """Has the weights, the average and the optimiser's state of `other`, in the tensors that it had before."""
        with torch.no_grad():
            for ours, theirs in zip(self._lasting(), other._lasting(), strict=True):
                ours.copy_(theirs)

    def nudge(self) -> None:
        """Moves the weights as far as rounding does."""
        with torch.no_grad():
            for p in self.model.parameters():
                p.mul_(1 + 1e-6 * torch.randn_like(p))

    def _lasting(self) -> list[Tensor]:
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        states = (self.model.state_dict(), self.average, *(self.optimiser.state.get(p, {}) for p in parameters))
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def coast(self, count: int) -> Report:
        """So many steps that hardly change anything, as a run takes them: one after the other, then the report."""
        for k in range(count):
            self.step.run(*self._batches[k % len(self._batches)], [1e-6], 0.999, entropy_only=False)
            if k % REFRESH_EVERY == 2:
                self.optimiser.renew_bases()
        return self.step.report()

    def report(self, k: int, **options: bool) -> Report:
        """Step k, and the report of it."""
        self.take(k, **options)
        return self.step.report()


def check_capture(
    build: Callable[[], nn.Module], capture: Capture = cuda_graph, *, entropy_only: bool = False, **options: Any
) -> dict[str, Any]:
    """Steps that `capture` has captured do to a model what steps do that just run. Options are those of `Steps`.

    Rounding may tell them apart, and SOAP makes much of it in directions without gradients. How much, a third model
    shows, whose weights begin that far away. Convolutions on a GPU add up in one order, the same each time.
    """
    in_order = torch.backends.cudnn.flags(enabled=True, deterministic=True)
    with in_order, side_stream(torch.device(options.get("device", "cpu"))):
        models = []
        for how in (None, capture, None):
            torch.manual_seed(0)
            models.append(Steps(build(), how, **options))
        plain, captured, rounded = models
        for model in models:
            for k in range(WARM_UP):
                model.take(k, entropy_only=entropy_only, renew=k + 1 == WARM_UP)
            model.step.report()
            model.take_over(plain)
        rounded.nudge()
        before = _flat(plain.model.state_dict())
        for k in range(WARM_UP, WARM_UP + 3):
            ours, theirs, _ = (x.report(k, entropy_only=entropy_only).means for x in models)
            for name, value in ours.items():
                require(abs(theirs[name] - value) <= 0.03 * abs(value), f"step {k}: {name} {theirs[name]}, not {value}")
        moved = (_flat(plain.model.state_dict()) - before).norm()
        facts = {}
        for what, state in (("weights", lambda x: x.model.state_dict()), ("average", lambda x: x.average)):
            apart, chance = ((_flat(state(x)) - _flat(state(plain))).norm() / moved for x in (captured, rounded))
            require(apart <= 3 * chance, f"{what} of captured steps ended {apart} of their way apart, not {chance}")
            facts[what] = {"apart": float(apart), "by_rounding": float(chance)}
        return facts


def measure_crops(
    build: Callable[[], nn.Module], capture: Capture | None = cuda_graph, *, steps: int = 100, **options: Any
) -> dict[str, Any]:
    """Crops per second of steps after those in which kernels are chosen, compiled and captured."""
    device = torch.device(options["device"])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with side_stream(device):
        torch.manual_seed(0)
        trained = Steps(build(), capture, **options)
        begun = time.perf_counter()
        trained.coast(WARM_UP + 2)
        ready = time.perf_counter() - begun
        begun = time.perf_counter()
        report = trained.coast(steps)
        seconds = time.perf_counter() - begun
    require(not report.skipped, f"{report.skipped} steps had gradients that are not finite")
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    speed = steps * options.get("batch", 2) / seconds
    return {"crops_per_second": round(speed, 1), "seconds_before": round(ready, 1), "gib": round(memory, 2)}


def _flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten().float() for tensor in state.values()])
