"""Weights on disk: float16 tensors in safetensors files, in shards if they are large."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from condic.errors import InputError
from condic.files import exists, named, named_errors, replace_whole
from condic.models.entropy import plain_gaussians
from condic.models.exact import Range

SHARD_BYTES = 15 * 2**20
"""Largest size of one file."""
_NOT_FINITE = "holds infinity or NaN: the training has diverged (a lower --learning-rate?), or the weights are damaged"


def save_weights(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> list[Path]:
    """Writes float16 tensors to `path`, or to `NAME-00001-of-0000N` beside it if they exceed one shard; the paths.

    Raises InputError where the system refuses, and for numbers that are none, or none in float16.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES - 2**16
    for name, tensor in state.items():
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        if not half.isfinite().all():
            raise InputError(f"{path}: not written, since {name} {_NOT_FINITE}")
        if half.nbytes > room:
            shards.append({})
            room = SHARD_BYTES - 2**16
        shards[-1][name] = half
        room -= half.nbytes
    paths = [path] if len(shards) == 1 else [
        path.with_name(f"{path.stem}-{k:05d}-of-{len(shards):05d}{path.suffix}") for k in range(1, len(shards) + 1)
    ]  # fmt: skip
    for shard, target in zip(shards, paths, strict=True):
        with named_errors(target), replace_whole(target) as temporary:
            temporary.write_bytes(save(shard, metadata=metadata))
    return paths


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads weights written by `save_weights` into a model; `path` is what it was given, or any one of the shards.

    Raises InputError for what is not weights of this model, whole and finite.
    """
    state: dict[str, Tensor] = {}
    metadata = read_metadata(path)  # which is the same in all shards of the same weights
    asked = {"model": getattr(model, "name", None), "preset": getattr(model, "preset_name", None)}
    for key, value in asked.items():
        if value and metadata.get(key, value) != value:
            raise InputError(f"{path}: weights of {key} {metadata[key]}, not {value}")
    for shard in _shards(path):
        try:
            state |= load_file(shard)
        except (SafetensorError, OSError) as error:
            raise _not_weights(shard, error) from error
    expected = model.state_dict()
    if "mixture" in expected:  # which weights lack whose symbols have not been counted
        state.setdefault("mixture", expected["mixture"])
    for name, tensor in expected.items():
        if name not in state:
            raise InputError(f"{path}: lacks the tensor {name}; weights of another model or preset?")
        if state[name].shape != tensor.shape:
            raise InputError(f"{path}: {name} is {list(state[name].shape)}, this preset has {list(tensor.shape)}")
    if unknown := sorted(state.keys() - expected.keys()):
        raise InputError(f"{path}: unknown tensor {unknown[0]}; weights of another model or preset?")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    with named(path):
        check_finite(model)


def check_finite(model: nn.Module) -> None:
    """Raises InputError if a tensor of a model holds infinity or NaN, or one of calibration what it cannot."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{name} {_NOT_FINITE}")
    if any(bool((m.peak < 0).any()) for m in model.modules() if isinstance(m, Range)):
        raise InputError("a recorded range is negative: the weights are damaged")
    mixture = getattr(model, "mixture", torch.zeros(0, 3))
    if not (((mixture[:, :1] >= 0) & (mixture[:, :1] <= 1)).all() and (mixture[:, 1:] > 0).all()):
        raise InputError("a mixture has a weight outside 0..1 or a deviation that is not positive: they are damaged")


def forget_calibration(model: nn.Module) -> None:
    """Takes from a model what calibration found: it is of the weights as they are, not as training makes them."""
    for module in model.modules():
        if isinstance(module, Range):
            module.peak.zero_()
    model.mixture.copy_(plain_gaussians(len(model.mixture)))


def check_calibrated(model: nn.Module, path: Path) -> None:
    """Raises InputError unless the weights from `path` come with the ranges that freezing needs."""
    if not any(bool(m.peak.any()) for m in model.modules() if isinstance(m, Range)):
        options = " ".join(f"--{x} {v}" for x, v in read_metadata(path).items() if x in ("preset", "loss"))
        raise InputError(
            f"{path}: not calibrated; run condic-train {options} --init {path} --steps 0 --data PHOTOGRAPHS --out NEW"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """What `save_weights` was given as metadata. Raises InputError where shards are of different weights."""
    first: dict[str, str] | None = None
    for shard in _shards(path):
        try:
            with safe_open(shard, "pt") as file:
                metadata = dict(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise _not_weights(shard, error) from error
        if first is not None and metadata != first:
            raise InputError(f"{shard}: of other weights than the first part of {path}; copy or train all parts again")
        first = metadata
    return first or {}


def _shards(path: Path) -> Sequence[Path]:
    if match := re.fullmatch(r"(.+)-\d{5}-of-(\d{5})", path.stem):
        stem, count = match[1], int(match[2])
        return [path.with_name(f"{stem}-{k:05d}-of-{count:05d}{path.suffix}") for k in range(1, count + 1)]
    if not exists(path):
        pattern = f"{glob.escape(path.stem)}-[0-9][0-9][0-9][0-9][0-9]-of-*{glob.escape(path.suffix)}"
        if shards := sorted(path.parent.glob(pattern)):
            return _shards(shards[0])
    return [path]


def _not_weights(path: Path, error: Exception) -> InputError:
    if path.suffix == ".pt":
        return InputError(f"{path}: a checkpoint, not weights; --resume goes on with it, its weights lie beside it")
    return InputError(f"{path}: not readable as weights ({error})")
