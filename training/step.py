"""One step of training: forward, backward, optimiser, average.

A step reads what changes from one to the next (crops, levels, learning rates) from tensors that stay where they are,
and asks nothing of the host, which reads its sums when it likes. So it can be captured once as a CUDA graph and
replayed: thousands of small kernels that would otherwise wait for the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from condic.models.output import Output
from condic.training.evaluation import as_images
from condic.training.losses import Loss, decibels, rate_distortion
from condic.training.soap import Soap

CLIP_NORM = 1.0
WARM_UP = 3
"""Steps of a kind that were taken, not skipped, before it is captured: by then all state is in place."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Given what launches a step's work, returns what repeats that work."""


@dataclass(frozen=True)
class Report:
    """Of the steps since the last report.

    `means` has the loss, the bits per pixel of each stream and the PSNR in dB, and nothing if all steps were skipped.
    `skipped` is how many of all steps had gradients that are not finite, `in_a_row` how many of the last ones.
    """

    means: dict[str, float]
    skipped: int
    in_a_row: int


class Step:
    """Steps `model` by `optimiser`, and moves `average` (tensors of the model's state by name) towards it."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: Soap,
        average: Mapping[str, Tensor],
        *,
        loss: str,
        prior_share: float | None,
        batch: tuple[int, int],
        compile_model: bool = False,
        capture: Capture | None = None,
    ) -> None:
        """`batch`: crops in a batch and their side. `capture` is `cuda_graph` on a GPU; without it, steps just run."""
        self._model, self._optimiser, self._average = model, optimiser, average
        self._forward = torch.compile(model, dynamic=False) if compile_model else model
        self._loss, self._prior_share, self._capture = loss, prior_share, capture
        device = next(model.parameters()).device
        count, side = batch
        self._pixels = torch.zeros(count, side, side, 3, dtype=torch.uint8, device=device)
        self._levels = torch.zeros(count, dtype=torch.int64, device=device)
        self._rates = [torch.zeros((), device=device) for _ in optimiser.param_groups]
        self._pull = torch.zeros((), device=device)
        self._bad, self._skipped, self._in_a_row = (torch.zeros((), device=device) for _ in range(3))
        self._sums: dict[str, Tensor] = {}
        self._taken = torch.zeros((), device=device)
        optimiser.found_inf = self._bad
        self.forget()

    def count_skipped(self, before: int) -> None:
        """Counts on from the steps that a run had skipped before it was resumed."""
        self._skipped.fill_(before)

    def forget(self) -> None:
        """To be called when tensors of the model or the optimiser have been replaced: what was captured has the old."""
        self._replay: Callable[[], None] | None = None
        self._entropy_only, self._warm = False, 0
        self._optimiser.zero_grad()

    def run(
        self, pixels: np.ndarray, levels: np.ndarray, rates: Sequence[float], decay: float, *, entropy_only: bool
    ) -> None:
        """A step with crops uint8 [B, S, S, 3] at levels int64 [B].

        `rates` are the learning rates of the optimiser's groups, `decay` what the average keeps of itself. With
        `entropy_only`, the loss is the rate alone, no image is made, and the PSNR is the preview's. Steps with
        gradients that are not finite change nothing.
        """
        _put(self._pixels, pixels)
        _put(self._levels, levels)
        for group, buffer, rate in zip(self._optimiser.param_groups, self._rates, rates, strict=True):
            group["lr"] = buffer.fill_(rate)
        self._pull.fill_(1 - decay)
        if entropy_only != self._entropy_only:
            self.forget()
            self._entropy_only = entropy_only
        if self._replay:
            self._replay()
            return
        self._compute()
        if self._capture:
            self._warm += not self._bad
            if self._warm == WARM_UP:
                self._replay = self._captured(self._capture)

    def report(self) -> Report:
        """Waits for the steps so far."""
        values = torch.stack([*self._sums.values(), self._taken, self._skipped, self._in_a_row]).tolist()
        *sums, taken, skipped, in_a_row = values
        for total in (*self._sums.values(), self._taken):
            total.zero_()
        means = {name: x / taken for name, x in zip(self._sums, sums, strict=True)} if taken else {}
        return Report(means, int(skipped), int(in_a_row))

    def _compute(self) -> None:
        image = as_images(self._pixels)
        with torch.autocast(image.device.type, torch.bfloat16):
            if self._entropy_only:
                latents = self._model.code(image, self._levels)
                preview = latents.preview.detach()
                output = Output(preview, preview, latents.bits(), weight=0.0)
            else:
                output = self._forward(image, self._levels)
        loss = rate_distortion(output, image, self._levels, self._loss, self._prior_share)
        self._optimiser.zero_grad()
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
        self._bad.copy_(~norm.isfinite())
        self._optimiser.step()
        self._move_average()
        self._add_up(loss)

    def _captured(self, capture: Capture) -> Callable[[], None]:
        groups = self._optimiser.param_groups
        for group in groups:
            group["capturable"] = True  # not for good: PyTorch warns of capturable steps that just run
        replay = capture(self._compute)
        for group in groups:
            group["capturable"] = False
        return replay

    @torch.no_grad()
    def _move_average(self) -> None:
        state = self._model.state_dict()
        averaged = list(self._average.values())
        difference = torch._foreach_sub([state[name] for name in self._average], averaged)
        torch._foreach_mul_(difference, self._pull * (1 - self._bad))
        torch._foreach_add_(averaged, difference)

    @torch.no_grad()
    def _add_up(self, loss: Loss) -> None:
        values = {"loss": loss.total.detach(), **loss.bpp, "psnr": decibels(loss.mse).mean()}
        if not self._sums:
            self._sums = {name: torch.zeros_like(self._taken) for name in values}
        fine = self._bad == 0
        for name, value in values.items():
            self._sums[name] += torch.where(fine, value.float(), 0)
        self._taken += fine
        self._skipped += self._bad
        self._in_a_row.copy_((self._in_a_row + 1) * self._bad)


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Captures what `work` launches on the current stream, which has to be one of `side_stream`."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        work()
    return graph.replay


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """What is within runs on a stream of its own, where graphs can be captured; on a CPU, nothing changes."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _put(target: Tensor, values: np.ndarray) -> None:
    """Copies to the device; the host goes on at once, since what it copies from is pinned (and kept until then)."""
    source = torch.tensor(values)
    target.copy_(source.pin_memory() if target.is_cuda else source, non_blocking=True)
