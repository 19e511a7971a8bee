"""Entropy model of the latents: the scale table, the Gaussian rate, rounding, and the order of coding.

Latents are coded as integers `q = round(y - mu)` under a zero-mean Gaussian whose scale comes from a fixed table
(Minnen et al., "Joint Autoregressive and Hierarchical Priors", NeurIPS 2018; scale table as in Balle et al., ICLR
2018). Networks output the *index* into the table as a real number while training and as an integer once frozen.

What symbols of one index really look like is close to a Gaussian and not quite one. Calibration counts them, and a
mixture of two Gaussians per index, fitted to the counts, replaces the Gaussian in the coder's tables.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 64.0
MAGNITUDES = 1024
"""Magnitudes of symbols that are counted apart; larger ones count as the last."""

_FAR = 8.0
_PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))


def log_step(scales: int = SCALES) -> float:
    """Distance of neighbouring entries of a table with `scales`, as a natural logarithm."""
    return math.log(SCALE_MAX / SCALE_MIN) / (scales - 1)


def scale_table(scales: int = SCALES) -> Tensor:
    """Standard deviations, log-spaced from 0.11 to 64, float64 [scales]."""
    return SCALE_MIN * torch.exp(log_step(scales) * torch.arange(scales, dtype=torch.float64))


class _ClampInward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.limits
        passes = ((x >= low) | (gradient < 0)) & ((x <= high) | (gradient > 0))
        return gradient * passes, None, None


def clamp_inward(x: Tensor, low: float, high: float) -> Tensor:
    """x clamped to low..high; beyond them it has the gradient of those steps that lead back, and of no others.

    With none at all, what has once left the range never comes back (Balle et al., ICLR 2018, bound their scales so).
    """
    clamped: Tensor = _ClampInward.apply(x, low, high)
    return clamped


def scale_of_index(index: Tensor) -> Tensor:
    """Standard deviation at a real-valued index, clamped to the table (see `clamp_inward`)."""
    return SCALE_MIN * torch.exp(log_step() * clamp_inward(index, 0, SCALES - 1))


def index_of_scale(sigma: Tensor, scales: int = SCALES) -> Tensor:
    """Real-valued index of a standard deviation in a table with `scales` entries, clamped to the table."""
    return torch.log(sigma.clamp(SCALE_MIN, SCALE_MAX) / SCALE_MIN) / log_step(scales)


def gaussian_bits(residual: Tensor, index: Tensor) -> Tensor:
    """Bits of `residual` (any real: y - mu, with noise or rounded) under N(0, sigma(index)) on unit intervals.

    Computed in the log domain, so that far tails keep a gradient instead of hitting a floor. Beyond 8 sigma the tail is
    Mills' ratio to second order, whose gradient float32 holds where that of log_ndtr no longer is one.
    """
    return interval_bits(residual.float(), scale_of_index(index.float()))


def interval_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """`gaussian_bits` for any standard deviations, in the precision of the arguments."""
    inner = (residual.abs() - 0.5) / sigma
    width = 1 / sigma
    near, far = inner.clamp(max=_FAR), inner.clamp(min=_FAR)
    near_inner, near_outer = torch.special.log_ndtr(-near), torch.special.log_ndtr(-near - width)
    far_inner = -far.square() / 2 - far.log() - far.square().reciprocal() - 0.5 * math.log(2 * math.pi)
    far_ratio = -width * (far + width / 2) - torch.log1p(width / far)
    is_near = inner < _FAR
    log_inner = torch.where(is_near, near_inner, far_inner)
    log_ratio = torch.where(is_near, near_outer - near_inner, far_ratio)
    return -(log_inner + torch.log1p(-torch.exp(log_ratio.clamp(max=-1e-6)))) / math.log(2)


def latent_bits(residual: Tensor, index: Tensor, *, training: bool) -> Tensor:
    """Bits [B] of a latent's y - mu [B, C, H, W] once rounded, at real-valued indexes.

    In training their gradient is that of uniform noise in place of rounding. The value is not: with noise an element of
    the smallest scale seems to take 0.29 bits, which at low rates is more than everything that a file holds.
    """

    def total(coded: Tensor) -> Tensor:
        return gaussian_bits(coded, index).sum(dim=(1, 2, 3))

    if not training:
        return total(torch.round(residual))
    noisy = total(residual + torch.rand_like(residual) - 0.5)
    with torch.no_grad():
        excess = noisy - total(torch.round(residual))
    return noisy - excess


class GaussianConditional(nn.Module):
    """`latent_bits` under the indexes of a table with `scales` entries from 0.11 to 64; counts symbols while observing.

    `counts` int64 [scales, MAGNITUDES], None before, is of |q| by rounded index.
    """

    def __init__(self, scales: int = SCALES) -> None:
        super().__init__()
        self.scales, self.observing = scales, False
        self.counts: Tensor | None = None

    def forward(self, residual: Tensor, index: Tensor) -> Tensor:
        if self.observing:
            self._count(residual, index)
        return latent_bits(residual, index * ((SCALES - 1) / (self.scales - 1)), training=self.training)

    def _count(self, residual: Tensor, index: Tensor) -> None:
        rows = torch.round(index.detach()).clamp(0, self.scales - 1).nan_to_num().long()
        magnitudes = torch.round(residual.detach()).abs().clamp(max=MAGNITUDES - 1).nan_to_num().long()
        places = (rows * MAGNITUDES + magnitudes).flatten()
        counts = torch.bincount(places, minlength=self.scales * MAGNITUDES).view(self.scales, MAGNITUDES)
        self.counts = counts if self.counts is None else self.counts + counts


def plain_gaussians(scales: int) -> Tensor:
    """The mixtures of a table whose symbols have not been counted (see `mixture_of_scales`), float32 [scales, 3]."""
    return torch.tensor([0.0, 1.0, 1.0]).repeat(scales, 1)


def mixture_of_scales(table: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations and weights, float64 [S, 2] each, of the two Gaussians of each entry of a scale table [S].

    `mixture` [S, 3]: the weight of the second, and what the deviations of first and second are of the entry's own.
    """
    mixture = mixture.double().cpu()
    second = mixture[:, :1]
    return table[:, None] * mixture[:, 1:], torch.cat([1 - second, second], dim=1)


def quadtree_mask(step: int, like: Tensor) -> Tensor:
    """Where step 0..3 of the quadtree codes: 0/1 tensor [1, C, H, W] shaped and typed like `like` [B, C, H, W].

    Channel group g (of four) is coded at pixel phase pi_step(g) of each 2x2 cell, pi_k(g) = phase[g xor k], so that
    every step codes a quarter of the elements (Li et al., "Neural Video Compression with Diverse Contexts", CVPR 2023).
    """
    mask = torch.zeros_like(like[:1])
    size = like.shape[1] // 4
    for group in range(4):
        row, column = _PHASES[group ^ step]
        mask[:, group * size : (group + 1) * size, row::2, column::2].fill_(1)
    return mask


def quadtree_boxes(channels: int) -> list[list[tuple[int, int, int, int]]]:
    """The same schedule as data: per step, boxes (first channel, end channel, row phase, column phase) of period 2."""
    size = channels // 4
    return [[(g * size, (g + 1) * size, *_PHASES[g ^ step]) for g in range(4)] for step in range(4)]
