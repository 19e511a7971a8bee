"""One run of condic-train: data, model, trainer and display put together."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from condic.errors import InputError
from condic.files import named, named_errors, reason
from condic.models.cic_sr import STAGES, CicSr
from condic.models.codecs import Codec, build_codec
from condic.models.dcic_sgp import DcicSgp
from condic.models.quality import LAMBDA_RANGE, LEVELS, move_levels
from condic.models.weights import check_calibrated, forget_calibration, load_weights, read_metadata
from condic.training import loop
from condic.training.checkpoint import load_checkpoint
from condic.training.cic_sr_start import start_cic_sr
from condic.training.data import CropSampler, Photographs, load_photographs
from condic.training.evaluation import LEVELS as EVALUATED_LEVELS
from condic.training.evaluation import Point, to_batch
from condic.training.start import start_from_photographs

_SHOWN_SKIPS = 5
_MOST_FREEZING_COST = 0.005
"""Rise of the rate above which the integer form is worth fine-tuning."""
_LOG_WIDTH = 160
"""Columns where nobody watches: lines of a log are whole."""
_PIXELS_TO_START_FROM = 2**24
_FIRST_LAMBDAS = {"mse": (0.0016, 0.09), "ms-ssim": (2.4, 135.0)}
"""Lambda's range of weights that do not name it."""


def run_session(
    data: Sequence[Path],
    resume: Path | None,
    init: Path | None,
    validation: Path | None,
    device_name: str,
    options: dict[str, Any],
    *,
    compile_model: bool,
    force: bool,
) -> bool:
    """Runs training as the command line asked; raises CondicError for what the input made impossible.

    `compile_model`: the networks are compiled, on a GPU. `force`: a run that is in the folder already is replaced.
    Returns whether the run came to its end.
    """
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    device = _device(device_name)
    checkpoint = load_checkpoint(resume, options["model"], options["preset"]) if resume else None
    entropy_fraction = checkpoint.entropy_fraction if checkpoint else _entropy_fraction(init, **options)
    settings = loop.Settings(**options, entropy_fraction=entropy_fraction)
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {settings.out}: {reason(error)}; give a folder") from error
    replaced = _replaced(settings, resume, force=force)
    torch.manual_seed(settings.seed)
    model, metadata = _begun(settings, init)
    with console.status("decoding photographs"):
        images = []
        if validation:
            images = _reported(console, "to evaluate on: ", load_photographs([validation], 1))
        photographs = _reported(console, "", load_photographs(data, settings.crop))
    sampler = CropSampler(photographs, settings.crop, settings.batch, LEVELS, settings.seed)
    history = _history(metadata, init, model, settings) if init and settings.steps == 0 else None
    if not checkpoint and history is None:
        _start(model, sampler, trained=metadata.get("stage", "joint") if init else None)
    trainer = loop.Trainer(settings, model, device, compile_model=compile_model and device.type == "cuda")
    if checkpoint:
        trainer.resume(checkpoint)
        if trainer.fraction() >= 1:
            console.print(f"{resume}: has had all of {_length(settings)}; for more training give a longer run")
    if history is not None:
        trainer.history = history
    for path in replaced:
        with named_errors(path):
            path.unlink(missing_ok=True)
    log = loop.MetricsLog(settings.log_path, trainer.step if checkpoint else None)
    workers = max(1, min(16, (os.cpu_count() or 1) // (1 if device.type == "cuda" else 2)))
    freezes = isinstance(model, DcicSgp) and not settings.integers
    with trainer.stopped_by_signals():
        with _Display(console) as display:
            trainer.run(sampler, workers, [log, display], images)
        if not settings.integers:
            with console.status("calibrating"):
                trainer.calibrate(sampler)
    if images and not trainer.stopped:  # who stops a run does not want to wait
        points = trainer.evaluate(images)
        log.points(trainer.step, points)
        display.points(trainer.step, points)
        if freezes:
            _report_freezing(console, trainer.cost_of_freezing(images, points), settings)
    minutes = trainer.seconds / 60
    console.print(f"{trainer.step} steps in {minutes:.1f} min, {trainer.skipped} skipped: {settings.weights_path}")
    if trainer.stopped:
        console.print(f"stopped at {trainer.fraction():.0%}; go on with --resume {settings.checkpoint_path}")
    return not trainer.stopped


def _begun(settings: loop.Settings, init: Path | None) -> tuple[Codec, dict[str, str]]:
    """The model as the run begins, on the CPU, and what the weights that it begins with say of themselves."""
    model = build_codec(settings.model, settings.preset, settings.blind)
    if settings.crop % model.alignment:
        raise InputError(f"--crop {settings.crop}: preset {settings.preset} needs multiples of {model.alignment}")
    if isinstance(model, CicSr):
        model.begin(settings.stage)
    if not init:
        return model, {}
    metadata = read_metadata(init)
    load_weights(model, init)
    with named(init):
        move_levels(model, *_loss_and_lambdas(metadata))
    if settings.integers:
        check_calibrated(model, init)
        model.freeze()
    else:
        forget_calibration(model)  # what comes of these weights has another
    return model, metadata


def _history(metadata: Mapping[str, str], init: Path, model: Codec, settings: loop.Settings) -> dict[str, str]:
    """What weights that are only calibrated go on saying of themselves. Raises InputError for options not theirs."""
    if metadata.get("blind") != model.provenance().get("blind"):
        raise InputError(f"{init}: of --blind {metadata.get('blind', 'nothing')}; give the same to calibrate them")
    if metadata.get("stage", "joint") != settings.stage:
        raise InputError(f"{init}: of --stage {metadata.get('stage', 'joint')}; give the same to calibrate them")
    low, high = LAMBDA_RANGE[_loss_and_lambdas(metadata)[0]]
    return {**metadata, "lowest_lambda": str(low), "highest_lambda": str(high)}


def _length(settings: loop.Settings) -> str:
    steps = [] if settings.steps is None else [f"{settings.steps} steps"]
    minutes = [] if settings.budget is None else [f"{settings.budget / 60:g} minutes"]
    return " or ".join(steps + minutes)


def _entropy_fraction(init: Path | None, *, model: str, integers: bool, **_: object) -> float:
    if integers:
        return 1.0
    return 0.0 if init or model == "cic-sr" else loop.ENTROPY_FRACTION


def _loss_and_lambdas(metadata: Mapping[str, str]) -> tuple[str, tuple[float, float]]:
    """The loss that weights were trained with, and the lambdas of their lowest and highest level."""
    loss = metadata.get("loss", "mse")
    try:
        named = metadata.get("lowest_lambda"), metadata.get("highest_lambda")
        low, high = (float(x or first) for x, first in zip(named, _FIRST_LAMBDAS[loss], strict=True))
        if not 0 < low < high < math.inf:
            raise ValueError
        return loss, (low, high)
    except (KeyError, ValueError) as error:
        raise InputError(f"the weights say loss {loss!r} and no lambdas that fit it: they are damaged") from error


def _report_freezing(console: Console, changes: Sequence[float], settings: loop.Settings) -> None:
    """Says what the integer form of the entropy path costs, and the way out if it is much."""
    shown = ", ".join(f"{level}: {change:+.2%}" for level, change in zip(EVALUATED_LEVELS, changes, strict=True))
    mean = sum(changes) / len(changes)
    console.print(f"integers on the entropy path change the rate by {mean:+.2%} (level {shown})")
    if mean > _MOST_FREEZING_COST:
        options = f"--preset {settings.preset} --loss {settings.loss} --init {settings.weights_path} --integers"
        console.print(f"  more than {_MOST_FREEZING_COST:.1%}: fine-tune with {options} --out NEW")


def _start(model: Codec, sampler: CropSampler, *, trained: str | None) -> None:
    """The linear start, where the preset has one, of what no stage up to `trained` (None: no stage at all) trains."""
    if isinstance(model, DcicSgp):
        if trained is None:
            start_from_photographs(model, _first_crops(sampler))
    elif model.preset.residual:
        stages = STAGES[STAGES.index(trained) + 1 if trained else 0 : STAGES.index(model.stage) + 1]
        if set(stages) - {"joint"}:  # which has no part of its own
            start_cic_sr(model, stages, _first_crops(sampler))


def _first_crops(sampler: CropSampler) -> torch.Tensor:
    """The crops of a run's first batches, float32 [B, 3, H, W] in [0, 1]."""
    batches = -(-_PIXELS_TO_START_FROM // (sampler.batch * sampler.size**2))
    crops = np.concatenate([sampler.at(step)[0] for step in range(batches)])
    return to_batch(crops, torch.device("cpu")).contiguous()


class _Display:
    """The progress bar of a run, and its evaluations above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:.1f}%"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("training", total=1.0)

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, progress: loop.Progress) -> None:
        """Moves the bar."""
        bpp = " ".join(f"{name} {value:.3f}" for name, value in progress.bpp.items())
        text = (
            f"step {progress.step} loss {progress.loss:.3f} {progress.psnr:.2f} dB bpp {bpp} "
            f"{progress.crops_per_second:.1f} crops/s"
        )
        self._bar.update(self._task, completed=progress.fraction, description=text)

    def points(self, step: int, points: Sequence[Point]) -> None:
        """Prints an evaluation."""
        for p in points:
            ms_ssim = "" if p.ms_ssim is None else f", MS-SSIM {p.ms_ssim:.2f} dB"
            self._console.print(
                f"step {step} level {p.level:2d}: {p.rate:.3f} bpp, PSNR {p.psnr:.2f} dB{ms_ssim} "
                f"(preview {p.preview_psnr:.2f} dB; bpp {' '.join(f'{n} {v:.3f}' for n, v in p.bpp.items())})"
            )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: not a device that PyTorch knows; use cpu or cuda") from error
    # An index beyond 127 has come out negative.
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise InputError(f"--device {name}: PyTorch finds no such CUDA device here; use --device cpu")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise InputError(f"--device {name}: nothing trains there; use cpu or cuda")
    return device


def _replaced(settings: loop.Settings, resume: Path | None, *, force: bool) -> tuple[Path, ...]:
    """Files of another run that this one takes the place of. Raises InputError where that was not asked for."""
    checkpoint = settings.checkpoint_path
    if not checkpoint.exists() or (resume and resume.exists() and checkpoint.samefile(resume)):
        return ()
    if not force:
        raise InputError(
            f"{settings.out}: holds a run; go on with --resume {checkpoint}, replace it with --force, or give another "
            "--out"
        )
    return checkpoint, settings.log_path


def _reported(console: Console, what: str, photographs: Photographs) -> list[np.ndarray]:
    """The images, after a word about them and about those that were skipped."""
    megapixels = sum(p.shape[0] * p.shape[1] for p in photographs.images) / 1e6
    console.print(
        f"{what}{len(photographs.images)} photographs, {megapixels:.0f} megapixels; {len(photographs.skipped)} skipped"
    )
    for name, why in photographs.skipped[:_SHOWN_SKIPS]:
        console.print(f"  skipped {name}: {why}")
    return photographs.images
