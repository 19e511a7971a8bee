"""Where training of cic-sr starts: every part as the best linear codec that photographs suggest.

As for dcic-sgp (see `start`), blocks start as the identity, strided projections as principal components and synthesis
as their transpose; SwinIR starts as the 5x5 filter that least squares find, and the analysis subtracts x_SR. The
entropy model starts from statistics: the hyper latent carries principal components of log-magnitudes, h_sigma turns
them into scales, and what no hyper latent says is the standard deviation of each channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.cic_sr import CicSr, LatentCodec, Stage
from condic.models.cic_sr_transforms import Analysis, HyperBranch, Synthesis
from condic.models.entropy import SCALE_MIN
from condic.models.quality import LEVELS
from condic.models.sc_ar import INDEX_STEP
from condic.models.swin import SwinBlock
from condic.models.swinir import SCALE, ResidualGroup, SwinIR
from condic.training.start import components, project, zero

_HYPER_GAIN = 0.7
_SHRINK = 0.7
"""Slope of the logarithm of a scale on the smoothed logarithms of magnitudes."""
_AT_A_TIME = 16
"""Images that go through SwinIR together."""


@torch.no_grad()
def start_cic_sr(model: CicSr, stages: Sequence[Stage], image: Tensor) -> None:
    """Sets what `stages` train, in their order, from photographs [B, 3, H, W] in [0, 1], sides multiples of 128.

    Parts of stages that are not named stay as they are, and those after them start from what these make of the image.
    The model is of a preset with `residual`.
    """
    levels = torch.arange(len(image)) % LEVELS
    if "low-resolution" in stages:
        _start_blocks(model.lr)
        _start_codec(model.lr, model.downscale(image) - 0.5)
    if "super-resolution" in stages:
        low, _ = model.code_low_resolution(model.downscale(image[::4]), levels[::4])
        _start_blocks(model.super_resolution)
        _start_super_resolution(model.super_resolution, low, image[::4])
    if "conditional" in stages:
        _start_main(model, image, levels)


def _start_main(model: CicSr, image: Tensor, levels: Tensor) -> None:
    """The image's own codec, of what x_SR lacks; the condition's features are x_SR in its own principal components."""
    parts = zip(image.split(_AT_A_TIME), levels.split(_AT_A_TIME), strict=True)
    x_sr = torch.cat([model.super_resolution(model.code_low_resolution(model.downscale(x), at)[0]) for x, at in parts])
    known = x_sr * 0 if model.blind else x_sr
    _start_blocks(model.main)
    _start_codec(model.main, image - known - (0.5 if model.blind else 0.0))
    analysis, embed = model.main.analysis, model.condition.embed.proj
    project(embed, known - 0.5)
    for entry in (*analysis.entries, *model.main.synthesis.entries):
        zero(entry)
    for branch in (model.main.hyper_synthesis.mu, model.main.hyper_synthesis.sigma):
        zero(branch.entry)
    if not model.blind:  # the analysis subtracts what it has of x_SR
        shift = analysis.embed.proj.weight.flatten(1) @ embed.weight.flatten(1).T
        analysis.entries[0].weight[:, :, 0, 0] = -shift


def _start_blocks(network: nn.Module) -> None:
    """Makes every Swin block, and every group of them, the identity."""
    for module in network.modules():
        if isinstance(module, SwinBlock):
            zero(module.attn.proj)
            zero(module.mlp.fc2)
        elif isinstance(module, ResidualGroup):
            zero(module.conv)


def _start_codec(codec: LatentCodec, x: Tensor) -> None:
    """Makes a codec linear on x, an image around zero."""
    analysis, synthesis = codec.analysis, codec.synthesis
    y = _start_analysis(analysis, x)
    _start_synthesis(synthesis, analysis)
    _start_hyper(codec, y)
    deviation = y.double().square().mean(dim=(0, 2, 3)).sqrt().clamp(min=1e-4).log()
    codec.index.anchors[:] = (deviation + codec.gain.log_gain.anchors.double() - math.log(SCALE_MIN)) / INDEX_STEP


def _start_analysis(analysis: Analysis, x: Tensor) -> Tensor:
    y = project(analysis.embed.proj, x)
    for merge in analysis.merges:
        y = project(merge.reduction, F.pixel_unshuffle(y, 2))
    return y


def _start_synthesis(synthesis: Synthesis, analysis: Analysis) -> None:
    for split, merge in zip(synthesis.splits, analysis.merges, strict=True):
        split.reduction.weight[:] = merge.reduction.weight.transpose(0, 1)
    head = synthesis.head[0]
    head.weight[:, :, 0, 0] = analysis.embed.proj.weight.flatten(1).T
    nn.init.zeros_(head.bias)


def _start_hyper(codec: LatentCodec, y: Tensor) -> None:
    """Log-magnitudes to their principal components at half the resolution, and back to offsets of scale indexes."""
    analysis, branches = codec.hyper_analysis, codec.hyper_synthesis
    loud = torch.log1p(20 * y.abs())
    mean = loud.mean(dim=(0, 2, 3), keepdim=True)
    width, hyper = analysis.narrow.out_channels, analysis.down.out_channels
    narrow = components(loud - mean, width)  # [width, C]
    at_16 = torch.einsum("wc,bcij->bwij", narrow, loud - mean)
    down = components(F.pixel_unshuffle(at_16, 2), hyper)  # [hyper, 4 width]
    for layer in (analysis.narrow, analysis.down):
        zero(layer)
    analysis.narrow.weight[:, :, 1, 1] = narrow
    analysis.narrow.bias[:] = -(narrow @ mean.flatten())
    analysis.down.weight[:, :, 1:, 1:] = down.view(hyper, width, 2, 2) * _HYPER_GAIN
    for branch in (branches.mu, branches.sigma):
        _start_branch(branch, narrow, down)
    zero(branches.mu.widen)
    z = torch.einsum("hw,bwij->bhij", down, F.pixel_unshuffle(at_16, 2)) * _HYPER_GAIN
    deviation = z.double().square().mean(dim=(0, 2, 3)).sqrt().clamp(min=SCALE_MIN).log()
    codec.hyper_first.anchors[:, hyper:] = (deviation - math.log(SCALE_MIN)) / INDEX_STEP


def _start_branch(branch: HyperBranch, narrow: Tensor, down: Tensor) -> None:
    for layer in (branch.up, branch.widen):
        zero(layer)
    branch.up.weight[:, :, 1, 1] = down.T / _HYPER_GAIN
    branch.widen.weight[:, :, 1, 1] = narrow.T * (_SHRINK / INDEX_STEP)


def _start_super_resolution(network: SwinIR, low: Tensor, image: Tensor) -> None:
    """The first convolution hands on 3x3 neighbourhoods; the last one maps 3x3 of those to 4x4 pixels."""
    first, last = network.conv_first, network.upsample[0]
    zero(first)
    taps = 27
    first.weight[:taps] = torch.eye(taps).view(taps, 3, 3, 3)
    first.weight[taps:] = torch.randn(first.weight[taps:].shape, generator=torch.Generator().manual_seed(0)) * 0.1
    zero(network.conv_after_body)
    size = 9 * taps + 1
    gram, correlation = torch.zeros(size, size).double(), torch.zeros(size, 3 * SCALE**2).double()
    for part, wanted in zip(low, image, strict=True):
        features = first(part[None] - network.mean)[:, :taps]
        columns = F.unfold(features, 3, padding=1)[0].double()
        columns = torch.cat([columns, torch.ones_like(columns[:1])])
        gram += columns @ columns.T
        correlation += columns @ F.pixel_unshuffle(wanted[None] - network.mean, SCALE)[0].flatten(1).double().T
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, correlation).float()
    zero(last)
    last.weight[:, :taps] = solution[:-1].T.view(-1, taps, 3, 3)
    last.bias[:] = solution[-1]
