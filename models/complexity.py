"""Parameters and multiply-accumulates of a codec, counted by running its networks on shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from condic.models.dcic_sgp import DcicSgp

_SIDE = 512
_ENCODE_ONLY = ("prior_analysis", "analysis", "hyper_analysis")
_DECODE_ONLY = ("synthesis",)


@dataclass(frozen=True)
class Cost:
    """One network: `kmac` per pixel of the image; whether encoding and decoding run it."""

    role: str
    parameters: int
    kmac: float
    encode: bool
    decode: bool


def costs(preset: str) -> list[Cost]:
    """The networks of a dcic-sgp preset in coding order. Convolutions, linear layers and attention products count."""
    with torch.device("meta"):
        model = DcicSgp(preset).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, 3, _SIDE, _SIDE), torch.zeros(1, dtype=torch.long))
    flops = counter.get_flop_counts()
    result = []
    for name, network in model.named_children():
        total = sum(flops.get(f"DcicSgp.{name}", {}).values())
        if isinstance(network, torch.nn.ModuleList):
            total = sum(sum(flops[f"DcicSgp.{name}.{k}"].values()) for k in range(len(network)))
        if total:
            count = sum(p.numel() for p in network.parameters())
            result.append(Cost(name, count, total / 2e3 / _SIDE**2, name not in _DECODE_ONLY, name not in _ENCODE_ONLY))
    return result
