"""Exact networks of dcic-sgp's entropy path: hyper synthesis and the contexts of prior and main latents.

Their inputs are integer latents only; once frozen, so is everything they compute (see `exact`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.errors import InputError
from condic.models.blocks import in_float32
from condic.models.entropy import SCALES
from condic.models.exact import HIDDEN_LIMIT, STREAM_LIMIT, ExactConv, ExactTrunk
from condic.models.presets import Preset

CONTEXT_EXPONENT = 2
"""Exact networks read decoded latents in steps of 2**-2, clipped to +-CONTEXT_LIMIT steps."""
CONTEXT_LIMIT = HIDDEN_LIMIT
MEAN_EXPONENT = 4
"""Means are integers in units of 2**-4 (mu16)."""
INDEX_EXPONENT = 3
"""Heads put out scale indexes in units of 2**3, so that means and indexes train at a similar rate."""


class HyperSynthesis(nn.Module):
    """Exact: hyper latent (1/64) and prior latent (1/32) to parameters of the main latent's contexts (1/16)."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.lift = ExactConv(p.hyper, 4 * p.entropy, relu=True)
        self.trunk = ExactTrunk(p.entropy + p.prior, p.entropy, p.entropy_blocks)
        self.head = ExactConv(p.entropy, 4 * p.main, relu=True)

    def forward(self, hyper: Tensor, prior: Tensor, quality_bias: Tensor) -> Tensor:
        x = torch.cat([F.pixel_shuffle(self.lift(hyper), 2), prior], dim=1)
        return F.pixel_shuffle(self.head(self.trunk(x, quality_bias)), 2)

    def freeze(self, quality_bias: Tensor) -> Tensor:
        """Freezes all layers; `quality_bias` float [64, width]. Returns the exponents of the parameters."""
        hyper, prior = self.lift.weight.shape[1], self.trunk.entry.weight.shape[1] - self.lift.weight.shape[0] // 4
        e = _freeze_shuffled(self.lift, latent_exponents(hyper), CONTEXT_LIMIT)
        e = self.trunk.freeze(torch.cat([e, latent_exponents(prior)]), HIDDEN_LIMIT, quality_bias)
        return _freeze_shuffled(self.head, e, STREAM_LIMIT)


class Context(nn.Module):
    """Exact: what is decoded so far (and parameters) to mean and scale index, [B, 2 C, H, W].

    The first C channels of the output are the mean, the others the index into the scale table: reals in float form,
    mu16 and integers 0..63 once frozen.
    """

    def __init__(self, inputs: int, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.trunk = ExactTrunk(inputs, width, blocks)
        self.mean = ExactConv(width, channels, relu=False)
        self.index = ExactConv(width, channels, relu=False)
        nn.init.normal_(self.mean.weight, std=0.1 / width**0.5)
        nn.init.normal_(self.index.weight, std=0.1 / width**0.5)
        nn.init.constant_(self.index.bias, SCALES / 3 / 2**INDEX_EXPONENT)

    def forward(self, x: Tensor, quality_bias: Tensor) -> Tensor:
        x = self.trunk(x, quality_bias)
        if self.mean.frozen:
            return torch.cat([self.mean(x), self.index(x)], dim=1)
        return torch.cat([in_float32(self.mean, x), in_float32(self.index, x) * 2**INDEX_EXPONENT], dim=1)

    def freeze(self, exponent: Tensor, quality_bias: Tensor) -> None:
        """Freezes all layers; `exponent` of the inputs, `quality_bias` float [64, width]."""
        e = self.trunk.freeze(exponent, HIDDEN_LIMIT, quality_bias)
        for layer, wanted, bounds in (
            (self.mean, MEAN_EXPONENT, (-(2**15), 2**15 - 1)), (self.index, INDEX_EXPONENT, (0, SCALES - 1))
        ):  # fmt: skip
            wanted = torch.full((self.channels,), float(wanted), dtype=torch.float64)
            if not torch.equal(layer.freeze(e, STREAM_LIMIT, out_exponent=wanted, bounds=bounds), wanted):
                raise InputError(
                    "the weights cannot become integers: too large, a mean or scale would need sums of 2^24 or more"
                )


def latent_exponents(channels: int) -> Tensor:
    """Exponents of a decoded latent as an exact network reads it."""
    return torch.full((channels,), float(CONTEXT_EXPONENT), dtype=torch.float64)


def _freeze_shuffled(layer: ExactConv, exponent: Tensor, limit: int) -> Tensor:
    """Freezes a layer before a pixel shuffle: four channels that become one have one exponent. Returns those."""
    tied = layer.range.exponent(HIDDEN_LIMIT, tie=4)
    while True:  # the smallest that any of the four needs
        allowed = layer.freeze(exponent, limit, out_exponent=tied).view(-1, 4).amin(dim=1)
        if torch.equal(allowed, tied[::4]):
            return allowed
        tied = allowed.repeat_interleave(4)
