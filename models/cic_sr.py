"""cic-sr: an image coded under a super-resolved condition (Shen, Peng, Shih, Liu, ISCAS 2024).

The image at a quarter of its resolution is coded first, by an SC-AR CM codec of its own, and upscaled by SwinIR. The
result, x_SR, is the condition of everything that follows: its features give the queries of the cross-attention in main
and hyper transforms. Both latents are coded in spatial-channel chunks (`sc_ar`).

    x -> downscale -> x_LR -> lr_analysis -> lr;  lr -> lr_hyper_analysis -> lr_hyper
    lr_hyper -> lr_hyper_synthesis -> mu, sigma -> [lr_context k, lr_lrp k] -> lr_synthesis -> x_LR_hat
    x_LR_hat -> super_resolution -> x_SR -> condition -> features
    x, features -> analysis -> y;  y, features -> hyper_analysis -> z
    z, features -> hyper_synthesis -> mu, sigma -> [context k, lrp k] -> y_hat
    y_hat, features, x_SR -> synthesis -> x_hat
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from condic.models.cic_sr_presets import CIC_SR_PRESETS, ChunkSizes, HyperSizes, TransformSizes
from condic.models.cic_sr_transforms import (
    Analysis,
    Condition,
    ConvolutionHyperAnalysis,
    HyperAnalysis,
    HyperSynthesis,
    Synthesis,
)
from condic.models.entropy import plain_gaussians
from condic.models.exact import Range, round_straight_through
from condic.models.output import Output
from condic.models.quality import GainPair, LevelTable
from condic.models.resample import Downscale
from condic.models.sc_ar import GUARDED_SCALES, GuardedConditional, Hyper, Levels, SpatialChannelContext, stepwise
from condic.models.swin import Role
from condic.models.swinir import SwinIR

Stage = Literal["low-resolution", "super-resolution", "conditional", "joint"]
STAGES: tuple[Stage, ...] = ("low-resolution", "super-resolution", "conditional", "joint")
LOW_RESOLUTION_WEIGHT = 0.5
"""Distortion of x_LR against that of x at the same lambda, where the low-resolution codec is trained alone."""
_GAIN = 5.0


class LatentCodec(nn.Module):
    """Transforms, hyper transforms, context model and level tables of one image under one (or no) condition."""

    def __init__(
        self, transform: TransformSizes, hyper: HyperSizes, chunks: ChunkSizes, *, query: Role | None, residual: bool
    ) -> None:
        super().__init__()
        channels, entries = transform.channels, residual and query is not None
        self.analysis = Analysis(transform, query=query, entries=entries)
        self.synthesis = Synthesis(transform, query=query, entries=entries)
        self.hyper_analysis = (
            HyperAnalysis(channels, hyper, query=query, loudness=residual)
            if hyper.kind == "swin"
            else ConvolutionHyperAnalysis(channels, hyper)
        )
        self.hyper_synthesis = HyperSynthesis(channels, hyper, query=query, entry=entries)
        self.context = SpatialChannelContext(channels, chunks, residual=residual)
        self.conditional = GuardedConditional()
        self.gain = GainPair(channels, _GAIN)
        self.index = LevelTable(channels, initial=GUARDED_SCALES / 3)
        self.hyper_first = LevelTable(2 * hyper.channels)
        nn.init.constant_(self.hyper_first.anchors[:, hyper.channels :], GUARDED_SCALES / 3)

    def levels(self, level: Tensor) -> Levels:
        """Gains and index offsets at levels int64 [B]."""
        return Levels(*self.gain(level), self.index(level)[:, :, None, None])

    def code(
        self, y: Tensor, level: Tensor, features: tuple[Tensor, ...], condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A scaled latent as decoded, and the bits [B] of hyper latent and latent."""
        levels = self.levels(level)
        z = self.hyper_analysis(y * levels.inverse, *features)
        mean, index = self.hyper_first(level)[:, :, None, None].expand(-1, -1, *z.shape[2:]).chunk(2, dim=1)
        mean = stepwise(mean, 1)
        hyper_bits = self.conditional(z - mean, index)
        mu, sigma = self.hyper_synthesis(mean + round_straight_through(z - mean), *features)
        hat, bits = self.context.code(y, Hyper(mu, sigma, condition), levels)
        return hat, hyper_bits, bits


class CicSr(nn.Module):
    """The codec's networks and tables. Quality levels are int64 [B] in 0..63; images float32 [B, 3, H, W] in [0, 1].

    `query` says which input of a cross-attention asks: "condition" in the paper, "image" in the authors' release. With
    `blind` "condition" it is replaced by zeros (the paper's ablation). `stage` chooses what `forward` computes.
    """

    name = "cic-sr"
    frozen = False
    """Nothing on this codec's entropy path has an integer form."""
    mixture: Tensor

    def __init__(self, preset: str = "s", query: Role = "condition", *, blind: str | None = None) -> None:
        super().__init__()
        p = CIC_SR_PRESETS[preset]
        self.preset_name, self.preset, self.query, self.blind = preset, p, query, blind
        self.alignment = p.alignment
        self.stage: Stage = "joint"
        self.downscale = Downscale()
        self.lr = LatentCodec(p.lr, p.lr_hyper, p.lr_chunks, query=None, residual=p.residual)
        self.super_resolution = SwinIR(p.sr)
        self.condition = Condition(p)
        self.main = LatentCodec(p.main, p.hyper, p.chunks, query=query, residual=p.residual)
        self.register_buffer("mixture", plain_gaussians(GUARDED_SCALES))

    def begin(self, stage: Stage) -> None:
        """Chooses a stage of training: what `forward` computes, and which parameters have gradients."""
        self.stage = stage
        trained = {
            "low-resolution": [self.lr],
            "super-resolution": [self.super_resolution],
            "conditional": [self.condition, self.main],
            "joint": [self],
        }[stage]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for network in trained:
            network.requires_grad_(True)

    def forward(self, image: Tensor, level: Tensor) -> Output:
        """Codes images whose sides are multiples of the alignment, with real rounding (see `latent_bits`)."""
        x_lr = self.downscale(image)
        low, bits = self.code_low_resolution(x_lr, level)
        if self.stage == "low-resolution":
            return Output(low, low, bits, reference=x_lr, weight=LOW_RESOLUTION_WEIGHT)
        x_sr = self.super_resolution(low)
        if self.stage == "super-resolution":
            return Output(x_sr, x_sr, {})
        known = x_sr * 0 if self.blind else x_sr
        features = self.condition(known)
        in_analysis, in_synthesis, in_hyper = self.condition.split(features)
        gain, inverse = self.main.gain(level)
        y = self.main.analysis(image, gain, *in_analysis)
        condition = in_hyper[0] if self.preset.chunks.condition else None
        hat, hyper_bits, main_bits = self.main.code(y, level, in_hyper, condition)
        around = known if self.preset.residual and not self.blind else None
        x_hat = self.main.synthesis(hat, inverse, *in_synthesis, around=around)
        own = {"hyper": hyper_bits, "main": main_bits}
        return Output(x_hat, x_sr, bits | own if self.stage == "joint" else own)

    def entropy_path_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of what rates alone depend on: hyper transforms, contexts, their tables."""
        own = {"hyper_analysis", "hyper_synthesis", "context", "index", "hyper_first"}
        return ((name, p) for name, p in self.named_parameters() if name.split(".")[1] in own)

    def ranges(self) -> list[Range]:
        """No observers: nothing is frozen to integers."""
        return []

    def provenance(self) -> dict[str, str]:
        """What the metadata of these weights say beyond the run's settings."""
        return {"stage": self.stage} | ({"blind": self.blind} if self.blind else {})

    def code_low_resolution(self, x_lr: Tensor, level: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """x_LR [B, 3, H/4, W/4] as decoded (not clipped, not rounded), and its bits per stream."""
        gain, inverse = self.lr.gain(level)
        hat, hyper_bits, bits = self.lr.code(self.lr.analysis(x_lr, gain), level, ())
        return self.lr.synthesis(hat, inverse), {"lr_hyper": hyper_bits, "lr": bits}
