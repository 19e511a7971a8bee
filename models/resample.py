"""The low-resolution image of cic-sr: bicubic with antialiasing, at a quarter of the resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.blocks import in_float32

SCALE = 4
_TAPS = 4 * SCALE
_PADDING = (_TAPS - SCALE) // 2


class Downscale(nn.Module):
    """Images [B, 3, H, W], H and W multiples of 4, to [B, 3, H/4, W/4].

    The bicubic kernel with a = -1/2 (Keys, 1981), stretched by 4, weights normalised to one also at the edges: what
    Pillow and PyTorch's `interpolate(mode="bicubic", antialias=True)` compute.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        centre = (_TAPS - 1) / 2
        weights = _keys((torch.arange(_TAPS, dtype=torch.float64) - centre) / SCALE)
        weights = weights / weights.sum()
        kernel = torch.outer(weights, weights).float()
        self.register_buffer("kernel", kernel.repeat(3, 1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Float32 whatever autocast says: x_LR is what is coded."""
        return in_float32(self._filter, image)

    def _filter(self, x: Tensor) -> Tensor:
        total = F.conv2d(x * 0 + 1, self.kernel, stride=SCALE, padding=_PADDING, groups=3)
        return F.conv2d(x, self.kernel, stride=SCALE, padding=_PADDING, groups=3) / total


def _keys(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
