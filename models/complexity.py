"""Parameters and multiply-accumulates of a codec, counted by running its networks on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from condic.models.codecs import build_codec
from condic.models.dcic_sgp import DcicSgp

_SIDE = 1024
_ENCODE_ONLY = ("prior_analysis", "analysis", "hyper_analysis", "downscale", "lr_analysis", "lr_hyper_analysis")
_DECODE_ONLY = ("synthesis",)


@dataclass(frozen=True)
class Cost:
    """One network: `kmac` per pixel of the image; whether encoding and decoding run it."""

    role: str
    parameters: int
    kmac: float
    encode: bool
    decode: bool


def costs(preset: str, model: str = "dcic-sgp") -> list[Cost]:
    """The networks of a preset in coding order. Convolutions, linear layers and attention products count."""
    with torch.device("meta"):
        codec = build_codec(model, preset).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            codec(torch.empty(1, 3, _SIDE, _SIDE), torch.zeros(1, dtype=torch.long))
    flops = {name: sum(parts.values()) for name, parts in counter.get_flop_counts().items()}
    root = type(codec).__name__
    result = []
    for role, (path, network) in _networks(codec).items():
        total = sum(n for name, n in flops.items() if _outermost(name, f"{root}.{path}", flops))
        if total:
            count = sum(p.numel() for p in network.parameters())
            result.append(Cost(role, count, total / 2e3 / _SIDE**2, role not in _DECODE_ONLY, role not in _ENCODE_ONLY))
    return result


def _networks(codec: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """Networks by role, each with its path in the codec."""
    if isinstance(codec, DcicSgp):
        return {name: (name, network) for name, network in codec.named_children()}
    parts = ("analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis")
    low = {f"lr_{part}": (f"lr.{part}", getattr(codec.lr, part)) for part in parts}
    main = {part: (f"main.{part}", getattr(codec.main, part)) for part in parts}
    between = {name: (name, getattr(codec, name)) for name in ("super_resolution", "condition")}
    return {"downscale": ("downscale", codec.downscale)} | low | between | main


def _outermost(name: str, path: str, flops: Mapping[str, int]) -> bool:
    """Whether a counted module is that at `path`, or one in it that no other counted one contains."""
    if not f"{name}.".startswith(f"{path}."):
        return False
    parents = [name[:k] for k, c in enumerate(name) if c == "." and k >= len(path)]
    return not any(parent in flops for parent in parents)
