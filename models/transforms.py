"""Float transforms of dcic-sgp: prior analysis and synthesis, analysis, hyper analysis, synthesis.

They run in any precision and never decide how a stream decodes.
"""

from __future__ import annotations

from torch import Tensor, nn

from condic.models.blocks import ConditionAttention, Down, Modulation, Up, in_float32, residual_blocks
from condic.models.presets import Preset


class AttentionStage(nn.Module):
    """Windowed attention under f16 alternating with residual blocks, then more residual blocks, all at 1/16."""

    def __init__(self, features: int, channels: int, attention: int, blocks: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList([ConditionAttention(features, channels) for _ in range(attention)])
        self.mix = residual_blocks(channels, attention)
        self.tail = residual_blocks(channels, blocks)

    def forward(self, x: Tensor, f16: Tensor) -> Tensor:
        for attend, mix in zip(self.attention, self.mix, strict=True):
            x = mix(attend(x, f16))
        return self.tail(x)


class PriorAnalysis(nn.Module):
    """Image [B, 3, H, W] and gain to the scaled prior latent [B, prior, H/32, W/32]."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        w8, w16, w32 = p.prior_widths
        n8, n16, n32 = p.prior_blocks
        self.body = nn.Sequential(
            nn.Conv2d(3, w8, 8, stride=8), residual_blocks(w8, n8),
            Down(w8, w16), residual_blocks(w16, n16),
            Down(w16, w32), residual_blocks(w32, n32),
        )  # fmt: skip
        self.head = nn.Conv2d(w32, p.prior, 1)

    def forward(self, image: Tensor, gain: Tensor) -> Tensor:
        return in_float32(self.head, self.body(image - 0.5)) * gain


class PriorSynthesis(nn.Module):
    """Decoded prior and inverse gain to features f8 and f16 and the preview image [B, 3, H, W]."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        w8, w16, w32 = p.prior_widths
        n8, n16, n32 = p.prior_blocks
        self.at_32 = nn.Sequential(nn.Conv2d(p.prior, w32, 1), residual_blocks(w32, n32))
        self.at_16 = nn.Sequential(Up(w32, w16), residual_blocks(w16, n16))
        self.at_8 = nn.Sequential(Up(w16, w8), residual_blocks(w8, n8))
        self.preview = Up(w8, 3, factor=8)

    def forward(self, prior_hat: Tensor, inverse_gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f16 = self.at_16(self.at_32(prior_hat * inverse_gain))
        f8 = self.at_8(f16)
        preview = in_float32(self.preview, f8) + 0.5
        return f8, f16, preview


class Analysis(nn.Module):
    """Image under the prior's features, and gain, to the scaled main latent [B, main, H/16, W/16]."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        (f8, f16, _), (w8, w16), (n8, n16) = p.prior_widths, p.widths, p.analysis_blocks
        self.stem = nn.Conv2d(3, w8, 8, stride=8)
        self.modulate_8 = Modulation(f8, w8)
        self.at_8 = residual_blocks(w8, n8)
        self.down = Down(w8, w16)
        self.modulate_16 = Modulation(f16, w16)
        self.at_16 = AttentionStage(f16, w16, p.attention, n16)
        self.head = nn.Conv2d(w16, p.main, 1)

    def forward(self, image: Tensor, f8: Tensor, f16: Tensor, gain: Tensor) -> Tensor:
        x = self.at_8(self.modulate_8(self.stem(image - 0.5), f8))
        x = self.at_16(self.modulate_16(self.down(x), f16), f16)
        return in_float32(self.head, x) * gain


class Synthesis(nn.Module):
    """Decoded main latent, inverse gain and the prior's features to the image: detail added to the preview."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        (f8, f16, _), (w8, w16), (n8, n16) = p.prior_widths, p.widths, p.synthesis_blocks
        self.stem = nn.Conv2d(p.main, w16, 1)
        self.modulate_16 = Modulation(f16, w16)
        self.at_16 = AttentionStage(f16, w16, p.attention, n16)
        self.up = Up(w16, w8)
        self.modulate_8 = Modulation(f8, w8)
        self.at_8 = residual_blocks(w8, n8)
        self.head = Up(w8, 3, factor=8)

    def forward(self, main_hat: Tensor, inverse_gain: Tensor, f8: Tensor, f16: Tensor, preview: Tensor) -> Tensor:
        x = self.at_16(self.modulate_16(self.stem(main_hat * inverse_gain), f16), f16)
        x = self.at_8(self.modulate_8(self.up(x), f8))
        return preview + in_float32(self.head, x)


class HyperAnalysis(nn.Module):
    """Scaled main latent (1/16) and decoded prior (1/32) to the hyper latent (1/64)."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        width = p.prior_widths[1]
        self.stem = nn.Sequential(nn.Conv2d(p.main, width, 1), residual_blocks(width, 1), Down(width, width))
        self.prior = nn.Conv2d(p.prior, width, 1)
        self.tail = nn.Sequential(residual_blocks(width, 1), Down(width, width), nn.LeakyReLU(0.1))
        self.head = nn.Conv2d(width, p.hyper, 1)

    def forward(self, main: Tensor, prior_hat: Tensor) -> Tensor:
        return in_float32(self.head, self.tail(self.stem(main) + self.prior(prior_hat)))
