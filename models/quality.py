"""Quality levels: the 64 rate points of one model, and tables indexed by them.

A codec is trained once for all rates (gain units: Cui et al., "Asymmetric Gained Deep Image Compression with
Continuous Rate Adaptation", CVPR 2021). Everything that depends on the level is a small table: gain vectors of the
latents, bias vectors of the entropy path, parameters of the latents that have no context.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LEVELS = 64
LAMBDA_RANGE = {"mse": (0.0005, 0.09), "ms-ssim": (0.75, 135.0)}
"""Lambda at the lowest and the highest level, per loss; lambda multiplies 255^2 * MSE, or 1 - MS-SSIM."""


def lambda_of_level(level: Tensor | float, loss: str = "mse") -> Tensor | float:
    """Lagrangian weight of the distortion at a level, log-spaced over `LAMBDA_RANGE[loss]`; level in 0..63."""
    low, high = LAMBDA_RANGE[loss]
    return low * (high / low) ** (level / (LEVELS - 1))


class LevelTable(nn.Module):
    """A vector per quality level, linear between a few trained anchors so that neighbouring levels stay close.

    `forward(level)` takes levels [B], integers in 0..63 or reals between and beyond, where the outer lines go on, and
    returns float32 [B, channels].
    """

    def __init__(self, channels: int, *, initial: float = 0.0, slope: float = 0.0, anchors: int = 8) -> None:
        """Starts at `initial + slope * s`, s running from -1/2 at level 0 to 1/2 at level 63."""
        super().__init__()
        ramp = initial + slope * torch.linspace(-0.5, 0.5, anchors)
        self.anchors = nn.Parameter(ramp[:, None].repeat(1, channels))

    def forward(self, level: Tensor) -> Tensor:
        """The table's rows at `level`."""
        position = level.float() * ((len(self.anchors) - 1) / (LEVELS - 1))
        lower = position.floor().clamp(0, len(self.anchors) - 2).long()
        return torch.lerp(self.anchors[lower], self.anchors[lower + 1], (position - lower)[:, None])

    def anchor_levels(self) -> Tensor:
        """The levels of the anchors, float32 [anchors], from 0 to 63."""
        return torch.linspace(0, LEVELS - 1, len(self.anchors), device=self.anchors.device)

    @torch.no_grad()
    def move(self, levels: Tensor) -> None:
        """Gives each anchor what the table has at the level [anchors] named for it."""
        self.anchors.copy_(self(levels))

    def rows(self) -> Tensor:
        """All 64 rows, float32 [64, channels]: what export writes."""
        return self(torch.arange(LEVELS, device=self.anchors.device))


class GainPair(nn.Module):
    """Gain before rounding and its (separately trained) inverse after it, both positive, float32 [B, channels, 1, 1].

    The gain's slope over the levels starts at the square root of lambda's range: at high rate the distortion of a
    uniform quantiser grows with the square of its step.
    """

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        low, high = LAMBDA_RANGE["mse"]
        slope = 0.5 * math.log(high / low)
        self.log_gain = LevelTable(channels, initial=math.log(initial), slope=slope)
        self.log_inverse = LevelTable(channels, initial=-math.log(initial), slope=-slope)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and inverse gain at `level`."""
        return self.log_gain(level).exp()[:, :, None, None], self.log_inverse(level).exp()[:, :, None, None]


def move_levels(model: nn.Module, loss: str, former: tuple[float, float]) -> None:
    """Takes a model trained with `former` as lambda's range of this loss to today's, `LAMBDA_RANGE[loss]`.

    Every table gets at a level what it had where that level's lambda was, and its outer lines go on beyond.
    """
    low, high = former
    for table in model.modules():
        if isinstance(table, LevelTable):
            positions = torch.log(lambda_of_level(table.anchor_levels(), loss) / low) / math.log(high / low)
            table.move(positions * (LEVELS - 1))
