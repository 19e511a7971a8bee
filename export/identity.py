"""The bundle's id: a digest of all that a codec computes with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from condic.export.source import SourceCodec
from condic.models.exact import ExactConv
from condic.runtime.manifest import Latent, Step


def bundle_id(source: SourceCodec, tables: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over parameters (as float16; frozen ones as integers), tables, schedule, step lists and options.

    Precision, opset and file layout stay out, so that all exports of the same weights read each other's files.
    """
    digest = hashlib.sha256(_schedule(source).encode())
    modules = sorted(source.model.named_modules())
    exact = [name for name, module in modules if isinstance(module, ExactConv)]
    for name, module in modules:
        if isinstance(module, ExactConv):
            limits = torch.tensor([module.low, module.high])
            parts = [(x, "<f8") for x in (module.int_weight, module.int_bias, module.scale, limits)]
        elif any(name.startswith(f"{path}.") for path in exact):
            continue
        else:
            parts = [(x.detach(), "<f2" if x.is_floating_point() else "<i8") for x in weights_of(module)]
        for part, dtype in parts:
            digest.update(name.encode() + part.numpy().astype(dtype).tobytes())
    for name in sorted(tables):
        if not name.startswith("known."):
            digest.update(name.encode() + np.ascontiguousarray(tables[name]).tobytes())
    return digest.hexdigest()


def weights_of(module: nn.Module) -> list[torch.Tensor]:
    """What a module computes with, without those that it is made of."""
    return [*module.parameters(recurse=False), *constants_of(module)]


def constants_of(module: nn.Module) -> list[torch.Tensor]:
    """What a module computes with beside its parameters, such as a normalisation's statistics.

    condic's own have nothing: tables and integers tell what calibration has found, the rest follows from sizes.
    """
    if type(module).__module__.startswith("condic.models."):
        return []
    return [x for name, x in module.named_buffers(recurse=False) if name != "num_batches_tracked"]


def _schedule(source: SourceCodec) -> str:
    """Schedules, step lists and options as canonical text.

    What bundles did not have at first stays out where it says nothing, so that their ids stay what they were; so do the
    guard's deltas, which only tell the encoder what to note.
    """
    deltas = ("levels", "deltas")
    later = {"contiguous": False, "residual": None, "residual_inputs": (), "guard": None}

    def canonical(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not (k in later and v == later[k]) and k not in deltas}
            return {k: canonical(v) for k, v in kept.items()}
        return [canonical(v) for v in value] if isinstance(value, (list, tuple)) else value

    parts: list[Sequence[Latent | Step]] = [source.latents, source.encode, source.decode, source.preview]
    parts += [source.large_preview] if source.large_preview else []
    text = json.dumps([[canonical(asdict(x)) for x in part] for part in parts], sort_keys=True)
    return text + (json.dumps(dict(source.options), sort_keys=True) if source.options else "")
