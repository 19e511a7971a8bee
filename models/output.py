"""What a codec gives a step of training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Output:
    """Images [B, 3, H, W] around [0, 1] (not clipped) and bits [B] per stream.

    `reference` is what `image` should be, by default what was coded; `weight` multiplies its distortion, and
    `preview_weight` that of the preview.
    """

    image: Tensor
    preview: Tensor
    bits: dict[str, Tensor]
    reference: Tensor | None = None
    weight: float = 1.0
    preview_weight: float = 0.0
