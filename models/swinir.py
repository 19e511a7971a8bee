"""SwinIR for super-resolution (Liang et al., ICCV Workshops 2021), with the parameter names of the official release.

Its state dicts load as they are, but for buffers that follow from the window (`relative_position_index`, `attn_mask`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.blocks import in_float32
from condic.models.swin import ChannelNorm, SwinStage

SCALE = 4
_MEAN = (0.4488, 0.4371, 0.4040)
_FEATURES = 64


@dataclass(frozen=True)
class SwinIrSizes:
    """Width, depths and heads of the residual groups, and how pixels are made.

    `pixelshuffle` is the official "classical" form, `pixelshuffledirect` the "lightweight" one.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    mlp: float
    upsampler: Literal["pixelshuffle", "pixelshuffledirect"]


class ResidualGroup(nn.Module):
    """Swin blocks and a convolution around which x passes: [B, C, H, W] to the same shape."""

    def __init__(self, width: int, depth: int, heads: int, window: int, mlp: float) -> None:
        super().__init__()
        self.residual_group = SwinStage(width, depth, heads, window, mlp)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.residual_group(x))


class SwinIR(nn.Module):
    """Images [B, 3, H, W] in [0, 1], H and W multiples of the window, to [B, 3, 4 H, 4 W] (not clipped)."""

    mean: Tensor

    def __init__(self, sizes: SwinIrSizes) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.patch_embed = nn.Module()
        self.patch_embed.norm = ChannelNorm(width)
        self.layers = nn.ModuleList([
            ResidualGroup(width, depth, heads, sizes.window, sizes.mlp)
            for depth, heads in zip(sizes.depths, sizes.heads, strict=True)
        ])  # fmt: skip
        self.norm = ChannelNorm(width)
        self.conv_after_body = nn.Conv2d(width, width, 3, padding=1)
        if sizes.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(width, _FEATURES, 3, padding=1), nn.LeakyReLU(0.01))
            self.upsample = nn.Sequential(*[
                layer
                for _ in range(int(math.log2(SCALE)))
                for layer in (nn.Conv2d(_FEATURES, 4 * _FEATURES, 3, padding=1), nn.PixelShuffle(2))
            ])  # fmt: skip
            self.conv_last = nn.Conv2d(_FEATURES, 3, 3, padding=1)
        else:
            self.upsample = nn.Sequential(nn.Conv2d(width, 3 * SCALE**2, 3, padding=1), nn.PixelShuffle(SCALE))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first = in_float32(self.conv_first, x - self.mean)
        body = self.patch_embed.norm(first)
        for layer in self.layers:
            body = layer(body)
        x = first + self.conv_after_body(self.norm(body))
        if self.sizes.upsampler == "pixelshuffle":
            x = in_float32(self.conv_last, self.upsample(self.conv_before_upsample(x)))
        else:
            x = F.pixel_shuffle(in_float32(self.upsample[0], x), SCALE)
        return x + self.mean
