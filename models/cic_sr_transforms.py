"""Transforms of cic-sr: the condition's features, analysis and synthesis, hyper analysis and hyper synthesis.

All but the first exist twice: for the image under its condition, and, without features, for the low-resolution image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.blocks import in_float32
from condic.models.cic_sr_presets import CicSrPreset, HyperSizes, TransformSizes
from condic.models.swin import PatchEmbed, PatchMerge, PatchSplit, Role, SwinStage

T = TypeVar("T")
_LOUDNESS = 20.0


class Condition(nn.Module):
    """x_SR [B, 3, H, W] to its features at every stage: for analysis, for synthesis, and for the hyper transforms.

    Returned in one tuple: one tensor per stage of the analysis, the same for the synthesis if it has its own, and one
    [B, hyper width, H/16, W/16].
    """

    def __init__(self, p: CicSrPreset) -> None:
        super().__init__()
        main = p.main
        self.offset = 0.0 if main.norm else 0.5
        self.embed = PatchEmbed(main.patch, main.widths[0], norm=main.norm)
        self.analysis = _chain(main)
        self.synthesis = _chain(main) if p.separate else None
        self.hyper = nn.Conv2d(main.channels, p.hyper.width, 3, padding=1)

    def forward(self, x_sr: Tensor) -> tuple[Tensor, ...]:
        first = self.embed(x_sr - self.offset)
        features = _run_chain(self.analysis, first)
        own = features if self.synthesis is None else _run_chain(self.synthesis, first)
        return (*features, *([] if self.synthesis is None else own[1:]), self.hyper(own[-1]))

    def split(self, features: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """Features of analysis, of synthesis, and of the hyper transforms (at the latent's and at the hyper width)."""
        stages = len(self.analysis) + 1
        analysis = features[:stages]
        synthesis = analysis if self.synthesis is None else (features[0], *features[stages:-1])
        return analysis, synthesis, (synthesis[-1], features[-1])


class Analysis(nn.Module):
    """Image (full or low resolution) and gain to the scaled latent, under features of the condition if any."""

    def __init__(self, sizes: TransformSizes, *, query: Role | None, entries: bool) -> None:
        super().__init__()
        self.offset = 0.0 if sizes.norm else 0.5
        self.embed = PatchEmbed(sizes.patch, sizes.widths[0], norm=sizes.norm)
        self.entries = _entries(sizes.widths, entries)
        self.stages = _stages(sizes, query)
        self.merges = nn.ModuleList([
            PatchMerge(before, after, norm=sizes.norm)
            for before, after in zip(sizes.widths, sizes.widths[1:], strict=False)
        ])  # fmt: skip

    def forward(self, image: Tensor, gain: Tensor, *features: Tensor) -> Tensor:
        x = self.embed(image - self.offset)
        for k, stage in enumerate(self.stages):
            x = x if k == 0 else self.merges[k - 1](x)
            x = stage(x + self.entries[k](features[k]) if len(self.entries) else x, features[k] if features else None)
        return x.float() * gain


class Synthesis(nn.Module):
    """Decoded latent and inverse gain to the image, around x_SR where the preset says so."""

    def __init__(self, sizes: TransformSizes, *, query: Role | None, entries: bool) -> None:
        super().__init__()
        self.offset = 0.0 if sizes.norm else 0.5
        self.entries = _entries(sizes.widths, entries)
        self.stages = _stages(sizes, query)
        self.splits = nn.ModuleList([
            PatchSplit(before, after, norm=sizes.norm)
            for after, before in zip(sizes.widths, sizes.widths[1:], strict=False)
        ])  # fmt: skip
        width, patch = sizes.widths[0], sizes.patch
        self.head = (
            nn.Sequential(
                nn.Conv2d(width, width * patch**2, 5, padding=2),
                nn.PixelShuffle(patch),
                nn.Conv2d(width, 3, 3, padding=1),
            )
            if sizes.norm
            else nn.Sequential(nn.Conv2d(width, 3 * patch**2, 1), nn.PixelShuffle(patch))
        )

    def forward(self, latent: Tensor, inverse_gain: Tensor, *features: Tensor, around: Tensor | None = None) -> Tensor:
        x = latent * inverse_gain
        for k in reversed(range(len(self.stages))):
            x = x + self.entries[k](features[k]) if len(self.entries) else x
            x = self.stages[k](x, features[k] if features else None)
            x = self.splits[k - 1](x) if k else x
        x = in_float32(self.head, x)
        return x + self.offset if around is None else x + around


class HyperAnalysis(nn.Module):
    """Latent in natural units (and features) to the hyper latent.

    With `loudness` it reads log(1 + 20 |y|): scales are what the hyper latent mostly tells.
    """

    def __init__(self, channels: int, sizes: HyperSizes, *, query: Role | None, loudness: bool) -> None:
        super().__init__()
        self.loudness = loudness
        self.first = SwinStage(channels, sizes.depths[0], sizes.heads, sizes.window, sizes.mlp, query)
        self.narrow = nn.Conv2d(channels, sizes.width, 3, padding=1)
        self.second = SwinStage(sizes.width, sizes.depths[1], sizes.heads, sizes.window, sizes.mlp, query)
        self.down = nn.Conv2d(sizes.width, sizes.channels, 3, stride=2, padding=1)

    def forward(self, latent: Tensor, *features: Tensor) -> Tensor:
        x = torch.log1p(_LOUDNESS * latent.abs()) if self.loudness else latent
        wide, narrow = features or (None, None)
        x = self.second(self.narrow(self.first(x, wide)), narrow)
        return in_float32(self.down, x)


class HyperBranch(nn.Module):
    """One of h_mu and h_sigma: hyper latent (and features) to a parameter per element of the latent."""

    def __init__(self, channels: int, sizes: HyperSizes, *, query: Role | None, entry: bool) -> None:
        super().__init__()
        self.up = nn.Conv2d(sizes.channels, 4 * sizes.width, 3, padding=1)
        self.entry = nn.Conv2d(sizes.width, sizes.width, 1) if entry else None
        self.first = SwinStage(sizes.width, sizes.synthesis_depths[0], sizes.heads, sizes.window, sizes.mlp, query)
        self.widen = nn.Conv2d(sizes.width, channels, 3, padding=1)
        self.second = SwinStage(channels, sizes.synthesis_depths[1], sizes.heads, sizes.window, sizes.mlp, query)

    def forward(self, hyper: Tensor, *features: Tensor) -> Tensor:
        wide, narrow = features or (None, None)
        x = F.pixel_shuffle(self.up(hyper), 2)
        if self.entry is not None:
            x = x + self.entry(narrow)
        return self.second(in_float32(self.widen, self.first(x, narrow)), wide)


class HyperSynthesis(nn.Module):
    """Decoded hyper latent (and features) to h_mu and h_sigma, each of the latent's shape."""

    def __init__(self, channels: int, sizes: HyperSizes, *, query: Role | None, entry: bool) -> None:
        super().__init__()
        branch = HyperBranch if sizes.kind == "swin" else ConvolutionBranch
        self.mu = branch(channels, sizes, query=query, entry=entry)
        self.sigma = branch(channels, sizes, query=query, entry=entry)

    def forward(self, hyper: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(hyper, *features), self.sigma(hyper, *features)


class ConvolutionHyperAnalysis(nn.Module):
    """The authors' hyper analysis for the low-resolution image: five 3x3 convolutions, two of stride 2."""

    def __init__(self, channels: int, sizes: HyperSizes) -> None:
        super().__init__()
        steps = _between(channels, sizes)
        self.stack = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.GELU(),
            nn.Conv2d(channels, steps[0], 3, padding=1), nn.GELU(),
            nn.Conv2d(steps[0], sizes.width, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(sizes.width, steps[1], 3, padding=1), nn.GELU(),
            nn.Conv2d(steps[1], sizes.channels, 3, stride=2, padding=1),
        )  # fmt: skip

    def forward(self, latent: Tensor) -> Tensor:
        return self.stack(latent)


class ConvolutionBranch(nn.Module):
    """The same backwards: 3x3 convolutions and pixel shuffles."""

    def __init__(self, channels: int, sizes: HyperSizes, *, query: Role | None, entry: bool) -> None:
        super().__init__()
        steps = _between(channels, sizes)
        self.stack = nn.Sequential(
            nn.Conv2d(sizes.channels, steps[1], 3, padding=1), nn.GELU(),
            nn.Conv2d(steps[1], 4 * sizes.width, 3, padding=1), nn.PixelShuffle(2), nn.GELU(),
            nn.Conv2d(sizes.width, steps[0], 3, padding=1), nn.GELU(),
            nn.Conv2d(steps[0], 4 * channels, 3, padding=1), nn.PixelShuffle(2), nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, hyper: Tensor) -> Tensor:
        return self.stack(hyper)


def _between(channels: int, sizes: HyperSizes) -> tuple[int, int]:
    return (channels + sizes.width) // 2, (sizes.width + sizes.channels) // 2


def _stages(sizes: TransformSizes, query: Role | None) -> nn.ModuleList:
    rows = zip(sizes.widths, sizes.depths, sizes.heads, sizes.windows, strict=True)
    return nn.ModuleList([SwinStage(*row, sizes.mlp, query) for row in rows])


def _entries(widths: Sequence[int], wanted: bool) -> nn.ModuleList:
    """1x1 convolutions by which features are added to x at the entry of each stage."""
    return nn.ModuleList([nn.Conv2d(width, width, 1) for width in widths if wanted])


def _chain(sizes: TransformSizes) -> nn.ModuleList:
    pairs = zip(sizes.widths, sizes.widths[1:], strict=False)
    return nn.ModuleList([nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairs])


def _run_chain(chain: nn.ModuleList, first: Tensor) -> list[Tensor]:
    features = [first]
    for layer in chain:
        features.append(layer(features[-1]))
    return features
