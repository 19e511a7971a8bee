"""dcic-sgp: an image coded under its self-generated prior (arXiv 2510.24437), in condic's deployable form.

The prior `y_p` (1/32) is coded first. Its decoded features modulate analysis and synthesis at 1/8 and 1/16 and give
the queries of their attention; its integers enter the hyper synthesis, and so the context of the main latent `y`
(1/16). Prior and main latents are coded in four quadtree steps each, the hyper latent `z` (1/64) in one.

    x -> prior_analysis -> y_p -> [prior_context k] -> prior_synthesis -> f8, f16, preview
    x, f8, f16 -> analysis -> y;  y, y_p -> hyper_analysis -> z
    z, y_p -> hyper_synthesis -> parameters -> [context k] -> y_hat
    y_hat, f8, f16 -> synthesis, + preview -> x_hat
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condic.models.context import (
    CONTEXT_EXPONENT,
    CONTEXT_LIMIT,
    INDEX_EXPONENT,
    MEAN_EXPONENT,
    Context,
    HyperSynthesis,
    latent_exponents,
)
from condic.models.entropy import SCALES, GaussianConditional, plain_gaussians, quadtree_mask
from condic.models.exact import Range, floor_straight_through, round_straight_through
from condic.models.output import Output
from condic.models.presets import PRESETS
from condic.models.quality import GainPair, LevelTable
from condic.models.transforms import Analysis, HyperAnalysis, PriorAnalysis, PriorSynthesis, Synthesis

ALIGNMENT = 128
"""Sides are padded to multiples of this: the attention window (8) at 1/16."""
STEPS = 4
PREVIEW_WEIGHT = 0.1
"""Of the preview's distortion in the loss."""


@dataclass(frozen=True)
class Coded:
    """A latent after coding: `hat` [B, C, H, W] as decoded, `bits` [B] the estimated size."""

    hat: Tensor
    bits: Tensor


@dataclass(frozen=True)
class Latents:
    """An image's three coded latents, and what the decoded prior gives the transforms."""

    prior: Coded
    hyper: Coded
    main: Coded
    f8: Tensor
    f16: Tensor
    preview: Tensor

    def bits(self) -> dict[str, Tensor]:
        """Estimated bits [B] per stream, in coding order."""
        return {"prior": self.prior.bits, "hyper": self.hyper.bits, "main": self.main.bits}


class DcicSgp(nn.Module):
    """The codec's networks and tables. Quality levels are int64 [B] in 0..63; images float32 [B, 3, H, W] in [0, 1]."""

    name = "dcic-sgp"
    alignment = ALIGNMENT
    mixture: Tensor

    def __init__(self, preset: str = "s", blind: str | None = None) -> None:
        """`blind` names what gets zeros for the prior's features, in ablations: `analysis`, `synthesis` or `both`."""
        super().__init__()
        p = PRESETS[preset]
        self.preset_name, self.preset = preset, p
        self.blind = blind
        self.prior_analysis = PriorAnalysis(p)
        self.prior_context = nn.ModuleList([
            Context(p.prior, p.prior, p.entropy, p.entropy_blocks) for _ in range(1, STEPS)
        ])  # fmt: skip
        self.prior_synthesis = PriorSynthesis(p)
        self.analysis = Analysis(p)
        self.hyper_analysis = HyperAnalysis(p)
        self.hyper_synthesis = HyperSynthesis(p)
        self.context = nn.ModuleList([
            Context(p.main * (2 if k else 1), p.main, p.entropy, p.entropy_blocks) for k in range(STEPS)
        ])  # fmt: skip
        self.synthesis = Synthesis(p)
        self.prior_gain = GainPair(p.prior, 4.0)
        self.main_gain = GainPair(p.main, 4.0)
        self.prior_first = _parameter_table(p.prior)
        self.hyper_first = _parameter_table(p.hyper)
        self.quality_bias = nn.ModuleDict({role: LevelTable(p.entropy) for role in self.exact_networks()})
        self.conditional = GaussianConditional()
        self.register_buffer("mixture", plain_gaussians(SCALES))

    def exact_networks(self) -> dict[str, HyperSynthesis | Context]:
        """The networks of the entropy path by role."""
        return {
            **{f"prior_context_{k}": net for k, net in enumerate(self.prior_context, start=1)},
            "hyper_synthesis": self.hyper_synthesis,
            **{f"context_{k}": net for k, net in enumerate(self.context)},
        }

    def entropy_path_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of what rates alone depend on: hyper transforms, contexts, their tables."""
        own = ("prior_context", "hyper_analysis", "hyper_synthesis", "context", "prior_first", "hyper_first",
               "quality_bias")  # fmt: skip
        return ((name, p) for name, p in self.named_parameters() if name.partition(".")[0] in own)

    def bias_rows(self) -> dict[str, Tensor]:
        """The quality biases of the exact networks by role, float32 [64, width] each."""
        return {role: table.rows() for role, table in self.quality_bias.items()}

    def ranges(self) -> list[Range]:
        """The observers of the entropy path."""
        return [m for m in self.modules() if isinstance(m, Range)]

    def provenance(self) -> dict[str, str]:
        """What the metadata of these weights say beyond the run's settings."""
        return {"blind": self.blind} if self.blind else {}

    def forward(self, image: Tensor, level: Tensor) -> Output:
        """Codes images whose sides are multiples of 128, with real rounding (see `latent_bits` for its gradients)."""
        latents = self.code(image, level)
        _, inverse = self.main_gain(level)
        features = self.features("synthesis", latents.f8, latents.f16)
        x_hat = self.synthesis(latents.main.hat, inverse, *features, latents.preview)
        return Output(x_hat, latents.preview, latents.bits(), preview_weight=PREVIEW_WEIGHT)

    def code(self, image: Tensor, level: Tensor) -> Latents:
        """Everything but the synthesis: what the three streams hold, and what they cost."""
        gain, inverse = self.prior_gain(level)
        prior = self._code_prior(self.prior_analysis(image, gain), level)
        f8, f16, preview = self.prior_synthesis(prior.hat, inverse)
        gain, _ = self.main_gain(level)
        y = self.analysis(image, *self.features("analysis", f8, f16), gain)
        hyper = self._code_hyper(self.hyper_analysis(y, prior.hat), level)
        inputs = (self._as_context(hyper.hat), self._as_context(prior.hat))
        parameters = self._run_exact("hyper_synthesis", inputs, level)
        return Latents(prior, hyper, self._code_main(y, parameters, level), f8, f16, preview)

    def freeze(self) -> None:
        """Turns the entropy path into integers, from the ranges that forward passes under `observe` recorded."""
        rows = self.bias_rows()
        prior, main = latent_exponents(self.preset.prior), latent_exponents(self.preset.main)
        parameters = self.hyper_synthesis.freeze(rows["hyper_synthesis"])
        for k, net in enumerate(self.prior_context, start=1):
            net.freeze(prior, rows[f"prior_context_{k}"])
        for k, net in enumerate(self.context):
            net.freeze(torch.cat([main, parameters]) if k else parameters, rows[f"context_{k}"])

    def features(self, transform: str, f8: Tensor, f16: Tensor) -> tuple[Tensor, Tensor]:
        """What a transform sees of the prior: its features, or zeros if it is blind."""
        return (torch.zeros_like(f8), torch.zeros_like(f16)) if self.blind in (transform, "both") else (f8, f16)

    @property
    def frozen(self) -> bool:
        """Whether the entropy path is in its integer form."""
        return self.hyper_synthesis.lift.frozen

    def _run_exact(self, role: str, inputs: Sequence[Tensor], level: Tensor) -> Tensor:
        """An exact network's output; once frozen, inputs and output are integers and nothing may round them."""
        network, bias = self.exact_networks()[role], self.quality_bias[role](level)
        if not self.frozen:
            return network(*inputs, bias[:, :, None, None])
        with torch.autocast(bias.device.type, enabled=False):
            bias = network.trunk.entry.extra_as_integers(bias).float()
            return network(*inputs, bias[:, :, None, None])

    def _distribution(self, role: str, x: Tensor, level: Tensor) -> Tensor:
        """Mean and scale index as reals, [B, 2 C, H, W]."""
        out = self._run_exact(role, [x], level)
        if not self.frozen:
            return out
        mu16, index = out.chunk(2, dim=1)
        return torch.cat([mu16 * 2.0**-MEAN_EXPONENT, index], dim=1)

    def _as_context(self, hat: Tensor) -> Tensor:
        """A decoded latent as exact networks read it: once frozen, in integer steps, clipped as the runtime does."""
        if not self.frozen:
            return hat
        steps = floor_straight_through(hat.float() * 2**CONTEXT_EXPONENT + 0.5)
        return steps.clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT)

    def _code_prior(self, y: Tensor, level: Tensor) -> Coded:
        def predict(step: int, hat: Tensor) -> Tensor:
            if step == 0:
                return _predict_from_table(self.prior_first, level, y)
            return self._distribution(f"prior_context_{step}", self._as_context(hat), level)

        return self._code_quadtree(y, predict)

    def _code_hyper(self, z: Tensor, level: Tensor) -> Coded:
        mean, index = _predict_from_table(self.hyper_first, level, z).chunk(2, dim=1)
        return Coded(mean + round_straight_through(z - mean), self.conditional(z - mean, index))

    def _code_main(self, y: Tensor, parameters: Tensor, level: Tensor) -> Coded:
        def predict(step: int, hat: Tensor) -> Tensor:
            x = torch.cat([self._as_context(hat), parameters], dim=1) if step else parameters
            return self._distribution(f"context_{step}", x, level)

        return self._code_quadtree(y, predict)

    def _code_quadtree(self, y: Tensor, predict: Callable[[int, Tensor], Tensor]) -> Coded:
        hat, mean, index = (torch.zeros_like(y) for _ in range(3))
        for step in range(STEPS):
            mask = quadtree_mask(step, y)
            step_mean, step_index = predict(step, hat).chunk(2, dim=1)
            hat = hat + mask * (step_mean + round_straight_through(y - step_mean))
            mean, index = mean + mask * step_mean, index + mask * step_index
        return Coded(hat, self.conditional(y - mean, index))


def _parameter_table(channels: int) -> LevelTable:
    """Mean and scale index (in the units of the context heads) per level and channel, for latents without context."""
    table = LevelTable(2 * channels)
    nn.init.constant_(table.anchors[:, channels:], SCALES / 3 / 2**INDEX_EXPONENT)
    return table


def _predict_from_table(table: LevelTable, level: Tensor, like: Tensor) -> Tensor:
    mean, index = table(level)[:, :, None, None].chunk(2, dim=1)
    return torch.cat([mean.expand_as(like), (index * 2**INDEX_EXPONENT).expand_as(like)], dim=1)
