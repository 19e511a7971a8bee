"""Sizes of the dcic-sgp models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Widths (channels) and depths (residual blocks) of a dcic-sgp model."""

    prior: int
    """Channels of the prior latent (1/32); like `main`, a multiple of 4."""
    main: int
    hyper: int
    prior_widths: tuple[int, int, int]
    """Prior transforms at 1/8, 1/16, 1/32; the first two are also the widths of f8 and f16."""
    prior_blocks: tuple[int, int, int]
    widths: tuple[int, int]
    """Analysis and synthesis at 1/8 and 1/16; the second a multiple of 32."""
    analysis_blocks: tuple[int, int]
    synthesis_blocks: tuple[int, int]
    attention: int
    """Attention blocks in analysis and in synthesis, each."""
    entropy: int
    """Width of the exact networks."""
    entropy_blocks: int
    first_coded: int = 0
    """Elements with a smaller scale index are not coded but taken to be at their mean. All are coded: at the lowest
    levels most have the smallest scales, and one in two thousand of them is not at its mean, which costs 4 % of the
    rate."""


PRESETS = {
    "t": Preset(8, 16, 8, (8, 16, 16), (1, 1, 1), (16, 32), (1, 1), (1, 1), 1, 16, 1, first_coded=2),
    "s": Preset(96, 192, 64, (64, 128, 160), (1, 1, 2), (144, 192), (7, 1), (9, 1), 2, 176, 2),
    "b": Preset(128, 256, 96, (96, 160, 192), (2, 2, 2), (272, 256), (9, 1), (12, 1), 2, 208, 2),
    "l": Preset(256, 320, 128, (192, 384, 512), (4, 4, 4), (384, 640), (8, 6), (12, 6), 6, 512, 6),
}
