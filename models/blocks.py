"""Float building blocks: residual convolutions, modulation and windowed attention.

None looks at more than its neighbourhood: normalisation is per pixel over channels and windows sit on a fixed grid,
so that an image may be run in tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 8
HEAD = 32


class ResidualBlock(nn.Module):
    """x + project(act(expand(depthwise3x3(x)))): an inverted bottleneck, [B, C, H, W] to the same shape."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.expand = nn.Conv2d(channels, expansion * channels, 1)
        self.project = nn.Conv2d(expansion * channels, channels, 1)
        nn.init.normal_(self.project.weight, std=0.1 / (expansion * channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.leaky_relu(self.expand(self.depthwise(x)), 0.1))


class Modulation(nn.Module):
    """x * (1 + scale) + shift, both maps [B, C, H, W] predicted from features of the condition at the same size."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(features, 2 * channels, 1)
        nn.init.normal_(self.maps.weight, std=0.1 / features**0.5)
        nn.init.zeros_(self.maps.bias)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.maps(features).chunk(2, dim=1)
        return x * (1 + scale) + shift


class ConditionAttention(nn.Module):
    """Multi-head attention in 8x8 windows, query from the condition, key and value from x; adds to x.

    x [B, C, H, W] and features [B, F, H, W] with H and W multiples of 8; heads have 32 channels. A learned bias
    [heads, 64, 64] stands for relative position.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(features)
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(features, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)
        self.position = nn.Parameter(torch.zeros(channels // HEAD, WINDOW**2, WINDOW**2))
        nn.init.normal_(self.project.weight, std=0.1 / channels**0.5)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        query = self.query(self.norm_query(features.permute(0, 2, 3, 1)))
        key, value = self.key_value(self.norm(x.permute(0, 2, 3, 1))).chunk(2, dim=-1)
        return x + self.project(attend(query, key, value, self.position)).permute(0, 3, 1, 2)


class Down(nn.Conv2d):
    """Halves the resolution: one 2x2 convolution with stride 2, [B, C_in, H, W] to [B, C_out, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)


class Up(nn.Module):
    """Raises the resolution: 1x1 convolution, then pixel shuffle, [B, C_in, H, W] to [B, C_out, f H, f W]."""

    def __init__(self, in_channels: int, out_channels: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(in_channels, out_channels * factor**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.factor)


def in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """layer(x) in float32, also under autocast: for layers whose rounding is seen in pixels or latents."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return layer(x)
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """`count` residual blocks in a row, on [B, channels, H, W]."""
    return nn.Sequential(*[ResidualBlock(channels) for _ in range(count)])


def attend_in_windows(
    query: Tensor, key: Tensor, value: Tensor, position: Tensor, mask: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(C / heads) + position + mask) v within each window and head; all [B, H, W, C].

    `position` [heads, n, n] says how many heads there are and, n being the pixels of a window, how large it is; H and W
    are multiples of its side. `mask` [B, H, W, 1] is added to the scores of each key.
    """
    b, h, w, c = query.shape
    heads, pixels, _ = position.shape
    side = math.isqrt(pixels)

    def split(x: Tensor, heads: int) -> Tensor:
        x = x.reshape(b, h // side, side, w // side, side, heads, -1)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, pixels, x.shape[-1])

    bias = position.to(query.dtype)[None]
    if mask is not None:
        bias = bias + split(mask, 1).transpose(-2, -1).to(query.dtype)
    out = F.scaled_dot_product_attention(split(query, heads), split(key, heads), split(value, heads), attn_mask=bias)
    out = out.reshape(b, h // side, w // side, heads, side, side, c // heads)
    return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, h, w, c)


def attend(query: Tensor, key: Tensor, value: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attend_in_windows`; while a graph is exported, as one opaque operator.

    It has no gradient, and PyTorch 2.11 takes a compilation for training for an export too.
    """
    exporting = torch.compiler.is_exporting() and not torch.is_grad_enabled()
    return (attend_in_windows_op if exporting else attend_in_windows)(query, key, value, position, mask)


@torch.library.custom_op("condic::attend_in_windows", mutates_args=())
def attend_in_windows_op(
    query: Tensor, key: Tensor, value: Tensor, position: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`attend_in_windows` as one opaque operator: export decides how a graph expresses it (see export/attention)."""
    return attend_in_windows(query, key, value, position, mask).clone()


@attend_in_windows_op.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
    return torch.empty_like(query)
