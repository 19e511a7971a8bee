"""Checkpoints: everything that a run needs to go on."""

from __future__ import annotations

import io
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condic.errors import InputError
from condic.files import named_errors, replace_whole

CHECKPOINT_VERSION = 4
"""Higher with each change of what a state means: its tensors, the optimiser's, the lambda of a level."""


@dataclass
class Checkpoint:
    """State of a run after `step` steps and `seconds` of training."""

    model: str
    preset: str
    options: dict[str, Any]
    """What must be the same when the run goes on (see `Settings.lasting`)."""
    entropy_fraction: float
    step: int
    seconds: float
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimiser: dict[str, Any]
    torch_rng: Tensor
    """State of the host's generator."""
    version: int = CHECKPOINT_VERSION
    frozen_from: dict[str, Tensor] | None = None
    """Weights that gave the entropy path its integer form, if the run trains that."""
    skipped: int = 0
    """Steps of those that changed nothing."""
    cuda_rng: Tensor | None = None
    """State of the GPU's generator, which makes the noise there."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes beside `path`, then renames: the file is whole or as it was. Raises InputError where that is refused."""
    buffer = io.BytesIO()  # PyTorch has errors of its own for a full disk
    torch.save(asdict(checkpoint), buffer)
    with named_errors(path), replace_whole(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, model: str, preset: str) -> Checkpoint:
    """Reads a checkpoint of this model and preset; InputError names what does not fit."""
    try:
        _check_whole(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        version = state["version"]
        found = (state["model"], state["preset"])
        checkpoint = Checkpoint(**state) if version == CHECKPOINT_VERSION else None
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except InputError:
        raise
    except Exception as error:  # a pickle can fail in any way
        advice = "; weights are given with --init" if path.suffix == ".safetensors" else ""
        raise InputError(f"{path}: not a condic checkpoint ({type(error).__name__}){advice}") from error
    if checkpoint is None:
        raise InputError(f"{path}: checkpoint version {version}, this condic reads {CHECKPOINT_VERSION}")
    if found != (model, preset):
        raise InputError(f"{path}: checkpoint of {found[0]} preset {found[1]}, asked for {model} preset {preset}")
    return checkpoint


def _check_whole(path: Path) -> None:
    """A checkpoint is a zip file, whose checksums PyTorch does not look at. Raises InputError where one is wrong."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if part := archive.testzip():
                raise InputError(f"{path}: a damaged checkpoint ({part} has another checksum); take an older one")
