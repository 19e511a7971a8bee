"""Swin blocks with cross-attention, and the stages of transforms made from them (Liu et al., ICCV 2021).

A block of two inputs takes the query from one and key and value from the other; without features it is the usual
self-attention. Odd blocks of a stage shift the windows by half: instead of rolling the image and masking what met at
the edges, it is padded by half a window and the padding masked, which gives the same windows and lets tiles be cut
anywhere on the grid. Parameters have the names of the official code (`norm1`, `attn.proj`, `mlp.fc1`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.blocks import attend

Role = Literal["condition", "image"]
"""Which of the two inputs gives the query; the other one gives key and value."""
_MASKED = -100.0


class WindowAttention(nn.Module):
    """Projections and position bias of multi-head attention in windows of `window` x `window` pixels."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, *, cross: bool) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = relative_position_index(window)
        self.register_buffer("relative_position_index", index, persistent=False)
        if cross:
            self.q = nn.Linear(channels, channels)
            self.kv = nn.Linear(channels, 2 * channels)
        else:
            self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.fixed_position: Tensor | None = None

    def position(self) -> Tensor:
        """The bias of every pair of pixels, [heads, window^2, window^2]."""
        if self.fixed_position is not None:
            return self.fixed_position
        pixels = len(self.relative_position_index)
        return self.relative_position_bias_table[self.relative_position_index.flatten()].T.reshape(-1, pixels, pixels)


class Mlp(nn.Module):
    """Two linear layers with GELU between them, over the last dimension."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """x + attention, then + MLP; x and features [B, H, W, C], H and W multiples of the window."""

    def __init__(
        self, channels: int, heads: int, window: int, mlp: float, *, shifted: bool, query: Role | None
    ) -> None:
        super().__init__()
        self.window, self.shift, self.query = window, (window // 2 if shifted else 0), query
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, cross=query is not None)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp))

    def forward(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        own = self.norm1(x)
        if features is None:
            query, key, value = self.attn.qkv(own).chunk(3, dim=-1)
        else:
            asking, answering = (features, own) if self.query == "condition" else (own, features)
            query = self.attn.q(asking)
            key, value = self.attn.kv(answering).chunk(2, dim=-1)
        x = x + self.attn.proj(self._attend(query, key, value))
        return x + self.mlp(self.norm2(x))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        position = self.attn.position()
        if not self.shift:
            return attend(query, key, value, position)
        before, after = self.window - self.shift, self.shift
        edges = (0, 0, before, after, before, after)
        mask = F.pad(query[..., :1] * 0, edges, value=_MASKED)
        out = attend(F.pad(query, edges), F.pad(key, edges), F.pad(value, edges), position, mask)
        return out[:, before:-after, before:-after]


class SwinStage(nn.Module):
    """Blocks in a row, W-MSA and SW-MSA in turn: x and features [B, C, H, W] to [B, C, H, W]."""

    def __init__(
        self, channels: int, depth: int, heads: int, window: int, mlp: float = 4.0, query: Role | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([
            SwinBlock(channels, heads, window, mlp, shifted=k % 2 == 1, query=query) for k in range(depth)
        ])  # fmt: skip

    def forward(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        if not len(self.blocks):
            return x
        x = x.permute(0, 2, 3, 1)
        features = None if features is None else features.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, features)
        return x.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Pixels [B, 3, H, W] in blocks of `patch` x `patch` to [B, C, H/patch, W/patch]."""

    def __init__(self, patch: int, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)
        self.norm = ChannelNorm(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class PatchMerge(nn.Module):
    """Halves the resolution: blocks of 2x2 pixels become channels (c-major), are normalised and projected."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = ChannelNorm(4 * in_channels) if norm else nn.Identity()
        self.reduction = nn.Conv2d(4 * in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(F.pixel_unshuffle(x, 2)))


class PatchSplit(nn.Module):
    """Doubles the resolution: normalised, projected, and channels become blocks of 2x2 pixels."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = ChannelNorm(in_channels) if norm else nn.Identity()
        self.reduction = nn.Conv2d(in_channels, 4 * out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.reduction(self.norm(x)), 2)


def fix_positions(modules: Sequence[nn.Module]) -> None:
    """Computes the position biases once and for all: constants of an exported graph."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, WindowAttention):
                part.fixed_position = part.position().detach().contiguous()


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels of a window, int64 [window^2, window^2] (Swin, section 3.2)."""
    row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row[None] + window - 1
    right = column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + right
