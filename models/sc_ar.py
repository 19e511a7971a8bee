"""SC-AR CM: the spatial-channel context model of cic-sr's latents, chunk by chunk.

A latent has `slices` groups of channels at four places; chunk k is one group at one place, channel first, places in 2-D
zigzag order. Mean and scale of a chunk come from the hyper branches h_mu and h_sigma and the chunks decoded before it;
after coding, latent residual prediction adds 0.5 tanh(.) to it (LRCP, with cross-attention from h_mu where the preset
has it). Networks see latents in natural units (the gain undone), so that one network serves all quality levels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condic.models.blocks import in_float32
from condic.models.cic_sr_presets import ChunkSizes
from condic.models.entropy import SCALE_MIN, GaussianConditional, clamp_inward, log_step
from condic.models.exact import round_straight_through
from condic.models.swin import SwinStage

PLACES = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Rows and columns of the four places, in zigzag order."""
GUARDED_SCALES = 24
"""Entries of the scale table: fewer than where indexes are exact, since each boundary between them must be guarded."""
MEAN_STEP, RESIDUAL_STEP = 4, 2
"""Steps of means and of predicted residuals, in units of 1/16."""
INDEX_STEP = log_step(GUARDED_SCALES)
"""Distance of neighbouring scales, as a natural logarithm."""


@dataclass(frozen=True)
class Levels:
    """What depends on the quality level: gain and inverse [B, C, 1, 1], and an offset of scale indexes [B, C, 1, 1]."""

    gain: Tensor
    inverse: Tensor
    index: Tensor

    def of(self, channels: slice) -> Levels:
        """Those of some channels."""
        return Levels(self.gain[:, channels], self.inverse[:, channels], self.index[:, channels])


@dataclass(frozen=True)
class Hyper:
    """What is known before a latent's first chunk, each [B, C, H, W] in natural units, or cut into chunks."""

    mu: Sequence[Tensor] | Tensor
    sigma: Sequence[Tensor] | Tensor
    condition: Sequence[Tensor] | Tensor | None = None


class ChunkNetwork(nn.Module):
    """Convolutions with GELU between them, then optionally Swin stages whose output is added."""

    def __init__(
        self, inputs: int, outputs: int, sizes: ChunkSizes, refine: tuple[tuple[int, ...], int] | None = None
    ) -> None:
        super().__init__()
        widths = (inputs, *sizes.widths, outputs)
        layers: list[nn.Module] = []
        for before, after, kernel in zip(widths, widths[1:], sizes.kernels, strict=False):
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.GELU()]
        self.stack = nn.Sequential(*layers[:-1])
        depths, window = refine or ((), 1)
        self.refine = nn.ModuleList([SwinStage(outputs, depth, 4, window) for depth in depths])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.stack[:-1]:
            x = layer(x)
        x = refined = in_float32(self.stack[-1], x)
        for stage in self.refine:
            refined = stage(refined)
        return x + refined if len(self.refine) else x


class CrossAttention(nn.Module):
    """Adds to a residual what attention finds in the decoded chunks: query from h_mu, key and value from the latter."""

    def __init__(self, support: int, chunk: int, width: int, window: int) -> None:
        super().__init__()
        self.query, self.entry = nn.Conv2d(chunk, width, 1), nn.Conv2d(support, width, 1)
        self.stage = SwinStage(width, 1, 1, window, 1.0, "condition")
        self.exit = nn.Conv2d(width, chunk, 1)

    def forward(self, support: Tensor, mu: Tensor) -> Tensor:
        return in_float32(self.exit, self.stage(self.entry(support), self.query(mu)))


class GuardedConditional(GaussianConditional):
    """Under the scales of the guarded table, whose indexes are rounded but in training."""

    def __init__(self) -> None:
        super().__init__(GUARDED_SCALES)

    def forward(self, residual: Tensor, index: Tensor) -> Tensor:
        return super().forward(residual, index if self.training else torch.round(index))


class SpatialChannelContext(nn.Module):
    """Networks of all chunks of a latent with `channels` channels."""

    def __init__(self, channels: int, sizes: ChunkSizes, *, residual: bool) -> None:
        super().__init__()
        self.sizes, self.residual = sizes, residual
        self.chunk_channels = width = channels // sizes.slices
        self.count = sizes.slices * len(PLACES)
        self.conditional = GuardedConditional()
        known = width * (sizes.parameters + sizes.condition)
        mean, scale, lrp = sizes.refine or (None, None, None)
        supports = [known + width * min(k, sizes.window) for k in range(self.count)]
        self.mean = nn.ModuleList([ChunkNetwork(n, width, sizes, mean) for n in supports])
        self.scale = nn.ModuleList([ChunkNetwork(n, width, sizes, scale) for n in supports])
        self.lrp = nn.ModuleList([ChunkNetwork(n + width, width, sizes, lrp) for n in supports])
        self.attention = nn.ModuleList([
            CrossAttention(n + width, width, sizes.attention, 4) for n in supports if sizes.attention
        ])  # fmt: skip
        if residual:  # start from h_mu, h_sigma and no residual
            last = [net.stack[-1] for nets in (self.mean, self.scale, self.lrp) for net in nets]
            for layer in [*last, *(a.exit for a in self.attention)]:
                nn.init.normal_(layer.weight, std=0.01 / layer.weight.shape[1] ** 0.5)
                nn.init.zeros_(layer.bias)

    def only(self, k: int, *, residual: bool) -> SpatialChannelContext:
        """This model with the networks of chunk k alone, shared: those of its residual, or those of mean and scale."""
        stay = (self.lrp, self.attention) if residual else (self.mean, self.scale)
        networks = ((nets, j, net) for nets in (self.mean, self.scale, self.lrp, self.attention)
                    for j, net in enumerate(nets))  # fmt: skip
        memo = {id(net): net if j == k and nets in stay else nn.Identity() for nets, j, net in networks}
        return copy.deepcopy(self, memo)

    def place(self, k: int) -> tuple[slice, int, int]:
        """Channels, row and column of chunk k."""
        group, place = k % self.sizes.slices, k // self.sizes.slices
        return slice(group * self.chunk_channels, (group + 1) * self.chunk_channels), *PLACES[place]

    def cut(self, x: Tensor, k: int) -> Tensor:
        """Chunk k of [B, C, H, W]: [B, C/slices, H/2, W/2]."""
        channels, row, column = self.place(k)
        if self.sizes.contiguous:
            h, w = x.shape[2] // 2, x.shape[3] // 2
            return x[:, channels, row * h : (row + 1) * h, column * w : (column + 1) * w]
        return x[:, channels, row::2, column::2]

    def join(self, chunks: Sequence[Tensor]) -> Tensor:
        """The latent [B, C, H, W] made of its chunks."""
        slices = self.sizes.slices
        places = torch.stack([torch.cat(list(chunks[p * slices : (p + 1) * slices]), dim=1) for p in range(4)], dim=2)
        b, c, _, h, w = places.shape
        places = places.view(b, c, 2, 2, h, w)  # [.., column, row, ..]: PLACES go down first
        order = (0, 1, 3, 4, 2, 5) if self.sizes.contiguous else (0, 1, 4, 3, 5, 2)
        return places.permute(order).reshape(b, c, 2 * h, 2 * w)

    def predict(
        self, k: int, decoded: Sequence[Tensor], hyper: Hyper, gain: Tensor | None, offset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mean (in quantisation units) and real scale index of chunk k; `decoded` are the chunks before it.

        `gain` and `offset` of the scale index are those of the chunk's channels, for presets with `residual`.
        """
        mu, sigma = self._known(k, hyper.mu), self._known(k, hyper.sigma)
        mean = self.mean[k](self._support(k, mu, decoded, hyper))
        index = self.scale[k](self._support(k, sigma, decoded, hyper))
        if gain is not None and offset is not None:
            return (mean + mu[0]) * gain, index + sigma[0] + offset
        scale = clamp_inward(index, SCALE_MIN, math.inf) if self.training else index.clamp(min=SCALE_MIN)
        return mean, torch.log(scale / SCALE_MIN) / INDEX_STEP

    def predict_residual(self, k: int, decoded: Sequence[Tensor], own: Tensor, hyper: Hyper) -> Tensor:
        """What to add to chunk k, in -0.5..0.5 quantisation units; `own` is the chunk as decoded, in natural units."""
        mu = self._known(k, hyper.mu)
        support = torch.cat([self._support(k, mu, decoded, hyper), own], dim=1)
        out = self.lrp[k](support)
        if len(self.attention):
            out = out + self.attention[k](support, mu[0])
        return 0.5 * torch.tanh(out)

    def code(self, y: Tensor, hyper: Hyper, levels: Levels) -> tuple[Tensor, Tensor]:
        """The latent as decoded, in quantisation units, with gradients straight through rounding, and its bits [B].

        In training means and residuals are not rounded to their steps: networks trained through that rounding learn to
        stay at the boundaries between two steps, and all that is close to one has to be noted in the guard.
        """
        parts = Hyper(*(x if x is None else [self.cut(x, k) for k in range(self.count)]
                        for x in (hyper.mu, hyper.sigma, hyper.condition)))  # fmt: skip
        decoded: list[Tensor] = []
        hats, residuals, indexes = [], [], []
        for k in range(self.count):
            own = levels.of(self.place(k)[0])
            gain, offset, inverse = own.gain, own.index, own.inverse
            mean, index = self.predict(k, decoded, parts, *((gain, offset) if self.residual else (None, None)))
            mean, chunk = self._in_steps(mean, MEAN_STEP), self.cut(y, k)
            hat = mean + round_straight_through(chunk - mean)
            lrp = self.predict_residual(k, decoded[-self.sizes.window :], hat * inverse, parts)
            hat = hat + self._in_steps(lrp, RESIDUAL_STEP)
            decoded.append(hat * inverse)
            hats.append(hat)
            residuals.append(chunk - mean)
            indexes.append(index)
        return self.join(hats), self.conditional(self.join(residuals), self.join(indexes))

    def _in_steps(self, x: Tensor, step: int) -> Tensor:
        return x if self.training else stepwise(x, step)

    def _known(self, k: int, chunks: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """Chunk k and those after it, as many as the networks read; near the end, the last ones."""
        first = min(k, self.count - self.sizes.parameters)
        return list(chunks[first : first + self.sizes.parameters])

    def _support(self, k: int, known: Sequence[Tensor], decoded: Sequence[Tensor], hyper: Hyper) -> Tensor:
        condition = [] if hyper.condition is None else self._known(k, hyper.condition)
        return torch.cat([*known, *decoded[-self.sizes.window :], *condition[: self.sizes.condition]], dim=1)


def stepwise(x: Tensor, step: int) -> Tensor:
    """x rounded to multiples of step / 16, gradients passed straight through."""
    return round_straight_through(x * (16 / step)) * (step / 16)
