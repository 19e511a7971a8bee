"""The training loop: one optimiser, one schedule, checkpoints that survive a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from condic.command_line import signals_given_to
from condic.errors import InputError
from condic.files import named_errors, replace_whole
from condic.models.cic_sr import Stage
from condic.models.quality import LAMBDA_RANGE, LevelTable
from condic.models.weights import save_weights
from condic.training.calibration import calibrate
from condic.training.checkpoint import Checkpoint, save_checkpoint
from condic.training.data import CropSampler
from condic.training.evaluation import Point, evaluate
from condic.training.soap import REFRESH_EVERY, Soap
from condic.training.step import Report, Step, cuda_graph, side_stream
from condic.version import __version__

WARM_UP_FRACTION = 0.05
"""Of a run, or of each of its two parts (see `ENTROPY_FRACTION`)."""
EMA_DECAY = 0.999
ENTROPY_FRACTION = 0.1
"""Part of a run from the linear start in which the entropy path alone learns, at half the cost of a step."""
ENTROPY_SPEED, TABLE_SPEED = 3.0, 3.0
"""Learning rates of the entropy path in that part, and of tables afterwards, relative to the run's. A crop touches only
the rows of a table that are near its level."""
MOST_BAD_STEPS = 10
"""Steps in a row with gradients that are not finite before the run stops."""
REPORT_EVERY = {"cpu": 1, "cuda": 25}
"""Steps between two reports: a GPU works off what is queued and is waited for only then."""


@dataclass(frozen=True)
class Settings:
    """What a run is. It ends at `steps` or after `budget` seconds of training, whichever comes first."""

    model: str
    preset: str
    loss: str
    steps: int | None
    budget: float | None
    batch: int
    crop: int
    learning_rate: float
    seed: int
    out: Path
    stage: Stage = "joint"
    checkpoint_every: float = 180.0
    evaluate_every: int = 2000
    entropy_fraction: float = 0.0
    """Part of the run in which the entropy path alone learns."""
    integers: bool = False
    """Whether the entropy path trains in its integer form."""
    blind: str | None = None
    """The transform that does not see the prior's features (an ablation)."""
    prior_share: float | None = None
    """Part of a crop's bits beyond which those of dcic-sgp's prior cost more (None: they never do)."""

    def lasting(self) -> dict[str, Any]:
        """What may not change while a run lasts."""
        names = ("loss", "seed", "stage", "blind", "prior_share", "integers", "batch", "crop", "learning_rate")
        return {name: getattr(self, name) for name in names}

    @property
    def checkpoint_path(self) -> Path:
        return self.out / "checkpoint.pt"

    @property
    def log_path(self) -> Path:
        return self.out / "metrics.jsonl"

    @property
    def weights_path(self) -> Path:
        return self.out / f"{self.model}-{self.preset}.safetensors"


@dataclass(frozen=True)
class Progress:
    """How a run goes: `fraction` of it done, crops per second, loss and its parts, steps skipped so far.

    Loss, bits per pixel, PSNR and speed are means of the steps since the last report.
    """

    step: int
    fraction: float
    seconds: float
    crops_per_second: float
    loss: float
    bpp: dict[str, float]
    psnr: float
    skipped: int


class Listener(Protocol):
    """Who is told how a run goes."""

    def step(self, progress: Progress) -> None:
        """After each step on a CPU, after every 25 on a GPU; not if all of them were skipped."""

    def points(self, step: int, points: Sequence[Point]) -> None:
        """After each evaluation."""


class Trainer:
    """Model, EMA, optimiser and counters of a run.

    `history` is what the weights say of how they came to be, where that is not this run: it only calibrates them.
    """

    def __init__(
        self, settings: Settings, model: nn.Module, device: torch.device, *, compile_model: bool = False
    ) -> None:
        self.settings, self.device = settings, device
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.ema = _copy(self.model.state_dict())
        entropy = dict(self.model.entropy_path_parameters())
        self._transforms = [p for name, p in self.model.named_parameters() if p.requires_grad and name not in entropy]
        tables = {id(p) for m in self.model.modules() if isinstance(m, LevelTable) for p in m.parameters()}
        groups = ([], [], [])
        for name, p in self.model.named_parameters():
            groups[0 if id(p) in tables else 1 if name in entropy else 2].append(p)
        self.optimiser = Soap(
            [{"params": group} for group in groups],
            settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True,
        )  # fmt: skip
        self._training_step = Step(
            self.model, self.optimiser, self.ema, loss=settings.loss, prior_share=settings.prior_share,
            batch=(settings.batch, settings.crop), compile_model=compile_model,
            capture=cuda_graph if device.type == "cuda" else None,
        )  # fmt: skip
        self.step, self.seconds, self.skipped, self._stop = 0, 0.0, 0, False
        self.history: Mapping[str, str] = {}
        self._frozen_from = _copy(self.model.state_dict()) if self.model.frozen else None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on where a run of the same settings stopped."""
        for name, asked in self.settings.lasting().items():
            if (value := checkpoint.options[name]) != asked:
                raise InputError(f"the checkpoint is of a run with {name} {value}, asked for {asked}")
        self._frozen_from = checkpoint.frozen_from
        self._freeze_as_begun()
        self.model.load_state_dict(checkpoint.weights)
        for name, tensor in self.ema.items():
            tensor.copy_(checkpoint.ema[name])
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self._training_step.forget()
        self._training_step.count_skipped(checkpoint.skipped)
        torch.set_rng_state(checkpoint.torch_rng)
        if self.device.type == "cuda" and checkpoint.cuda_rng is not None:
            torch.cuda.set_rng_state(checkpoint.cuda_rng, self.device)
        self.step, self.seconds, self.skipped = checkpoint.step, checkpoint.seconds, checkpoint.skipped

    def run(
        self,
        sampler: CropSampler,
        workers: int,
        listeners: Sequence[Listener],
        validation: Sequence[np.ndarray] = (),
    ) -> None:
        """Trains to the end of the budget, or until a signal to end; always leaves a checkpoint and EMA weights."""
        batches = sampler.stream(self.step, workers)
        try:
            with self.stopped_by_signals(), side_stream(self.device):
                self._run(batches, listeners, validation)
        finally:
            batches.close()

    def stopped_by_signals(self) -> AbstractContextManager[None]:
        """Within it, SIGTERM, SIGHUP and Ctrl-C end the training, and nothing else."""
        return signals_given_to(self._request_stop)

    def _run(
        self,
        batches: Iterator[tuple[np.ndarray, np.ndarray]],
        listeners: Sequence[Listener],
        validation: Sequence[np.ndarray],
    ) -> None:
        saved = last = time.monotonic()
        reported, bad = (self.step, self.seconds), False
        while not self._stop and self.fraction() < 1:
            self._take_step(*next(batches))
            report = self._training_step.report() if self.step % REPORT_EVERY[self.device.type] == 0 else None
            now = time.monotonic()
            self.seconds += now - last
            if report:
                self.skipped, bad = report.skipped, report.in_a_row > 0
                if report.in_a_row >= MOST_BAD_STEPS:
                    kept = "; what was saved last is kept" if self.settings.checkpoint_path.exists() else ""
                    raise InputError(f"{report.in_a_row} steps in a row had no finite loss{kept}")
                crops = self.settings.batch * (self.step - reported[0])
                if report.means:
                    progress = self._progress(report, crops / (self.seconds - reported[1]))
                    for listener in listeners:
                        listener.step(progress)
                reported = self.step, self.seconds
            if now - saved > self.settings.checkpoint_every and not bad:
                self.save()
                saved = time.monotonic()
            if validation and self.step % self.settings.evaluate_every == 0:
                points = self.evaluate(validation)
                for listener in listeners:
                    listener.points(self.step, points)
            last = time.monotonic()
        self.skipped = self._training_step.report().skipped
        self.save()

    @property
    def stopped(self) -> bool:
        """Whether a signal has ended the run before its time."""
        return self._stop and self.fraction() < 1

    def fraction(self) -> float:
        """How much of the run is done, 0..1."""
        s = self.settings
        by_steps = 0.0 if s.steps is None else self.step / s.steps if s.steps else 1.0
        return max(by_steps, self.seconds / s.budget if s.budget else 0.0)

    def calibrate(self, sampler: CropSampler) -> None:
        """Calibrates the EMA weights, and writes them with what that recorded."""
        self.model.load_state_dict(self.ema)
        calibrate(self.model, sampler, self.device)
        self.ema = self.model.state_dict()
        self.save_weights()

    def evaluate(self, images: Sequence[np.ndarray]) -> list[Point]:
        """Evaluates the EMA weights."""
        current = _copy(self.model.state_dict())
        self.model.load_state_dict(self.ema)
        if self.model.frozen:
            self._freeze()
        points = evaluate(self.model, images, self.device)
        self._freeze_as_begun()
        self.model.load_state_dict(current)
        self._training_step.forget()
        return points

    def cost_of_freezing(self, images: Sequence[np.ndarray], before: Sequence[Point]) -> list[float]:
        """Freezes the model, if it is not; the rate's relative change at each level of `before`."""
        self._freeze()
        return [a.rate / b.rate - 1 for a, b in zip(self.evaluate(images), before, strict=True)]

    def save(self) -> None:
        """Writes the checkpoint and the EMA weights."""
        s = self.settings
        save_checkpoint(
            Checkpoint(s.model, s.preset, s.lasting(), s.entropy_fraction, self.step, self.seconds,
                       self.model.state_dict(), self.ema, self.optimiser.state_dict(), torch.get_rng_state(),
                       frozen_from=self._frozen_from, skipped=self.skipped,
                       cuda_rng=torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None),
            s.checkpoint_path,
        )  # fmt: skip
        self.save_weights()

    def save_weights(self) -> None:
        """Writes the EMA weights."""
        s = self.settings
        low, high = LAMBDA_RANGE[s.loss]
        metadata = {
            "model": s.model, "preset": s.preset, "licence": "Apache-2.0", "condic": __version__,
            "loss": s.loss, "lowest_lambda": str(low), "highest_lambda": str(high),
            "step": str(self.step), "minutes": f"{self.seconds / 60:.0f}", "batch": str(s.batch), "crop": str(s.crop),
        }  # fmt: skip
        save_weights(self.ema, s.weights_path, metadata | self.model.provenance() | self.history)

    def _freeze_as_begun(self) -> None:
        """Gives the entropy path the steps of integers that the run trains it for, if it does."""
        if self._frozen_from is not None:
            self.model.load_state_dict(self._frozen_from)
            self._freeze()

    def _freeze(self) -> None:
        with self.device:  # where freezing makes its tensors
            self.model.freeze()

    def _take_step(self, pixels: np.ndarray, levels: np.ndarray) -> None:
        entropy_only = self._entropy_only()
        for parameter in self._transforms:
            parameter.requires_grad_(not entropy_only)
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        self._training_step.run(pixels, levels, self._learning_rates(), decay, entropy_only=entropy_only)
        self.step += 1
        if self.step % REFRESH_EVERY == 2:  # the first gradient only made them
            self.optimiser.renew_bases()

    def _entropy_only(self) -> bool:
        return self.fraction() < self.settings.entropy_fraction

    def _learning_rates(self) -> tuple[float, float, float]:
        """Of tables, entropy path and transforms: warm-up and cosine over each of the run's two parts."""
        first, fraction = self.settings.entropy_fraction, min(1.0, self.fraction())
        begin, end = (0.0, first) if self._entropy_only() else (first, 1.0)
        done = (fraction - begin) / (end - begin)
        warm = min(1.0, 0.1 + done / WARM_UP_FRACTION)
        rate = self.settings.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        return rate * TABLE_SPEED, rate * (ENTROPY_SPEED if self._entropy_only() else 1.0), rate

    def _progress(self, report: Report, speed: float) -> Progress:
        bpp = {name: value for name, value in report.means.items() if name not in ("loss", "psnr")}
        return Progress(self.step, self.fraction(), self.seconds, speed, report.means["loss"], bpp,
                        report.means["psnr"], report.skipped)  # fmt: skip

    def _request_stop(self, *_: object) -> None:
        self._stop = True


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


class MetricsLog:
    """Appends one JSON object a line: for every `every` steps what they had on average, and for every evaluation.

    Where a run goes on from `step`, lines of later steps are dropped, and one that is not whole: a run that was killed
    had gone further than its last checkpoint. Raises InputError where the file cannot be read or written.
    """

    def __init__(self, path: Path, step: int | None = None, every: int = 50) -> None:
        self._path, self._every = path, every
        self._since: list[Progress] = []
        if step is not None:
            self._drop_beyond(step)

    def step(self, progress: Progress) -> None:
        """Logs the progress since the last line."""
        self._since.append(progress)
        if progress.step % self._every == 0:
            names = ("loss", "psnr", "crops_per_second")
            means = {name: mean(getattr(x, name) for x in self._since) for name in names}
            same = [x.bpp for x in self._since if x.bpp.keys() == progress.bpp.keys()]
            bpp = {name: mean(x[name] for x in same) for name in progress.bpp}
            self._append({"kind": "step", **asdict(progress), **means, "bpp": bpp})
            self._since.clear()

    def points(self, step: int, points: Sequence[Point]) -> None:
        """Logs an evaluation."""
        self._append({"kind": "evaluation", "step": step, "points": [asdict(p) for p in points]})

    def _drop_beyond(self, step: int) -> None:
        if not self._path.exists():
            return
        with named_errors(self._path):
            lines = self._path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _is_up_to(line, step)]
            if kept != lines:
                with replace_whole(self._path) as temporary:
                    temporary.write_bytes(b"".join(kept))

    def _append(self, row: dict[str, object]) -> None:
        with named_errors(self._path), self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _is_up_to(line: bytes, step: int) -> bool:
    """Whether a line of the log is whole, and of no later step, or of none."""
    try:
        return line.endswith(b"\n") and not json.loads(line)["step"] > step
    except (ValueError, TypeError, KeyError):
        return line.endswith(b"\n")
