"""Estimated rate and distortion of a model in training on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.training.losses import MS_SSIM_LEAST_SIDE, decibels, one_minus_ms_ssim

LEVELS = (0, 16, 32, 48, 63)


@dataclass(frozen=True)
class Point:
    """Mean over the images at one level: bits per pixel of each stream, quality in dB of the 8-bit result and preview.

    `ms_ssim` (-10 log10(1 - MS-SSIM) of the result) is None where an image has fewer than 161 pixels a side.
    """

    level: int
    bpp: dict[str, float]
    psnr: float
    preview_psnr: float
    ms_ssim: float | None

    @property
    def rate(self) -> float:
        """Bits per pixel of all streams."""
        return sum(self.bpp.values())


def to_batch(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1] on a device, channels last in memory."""
    return as_images(torch.tensor(pixels, device=device))


def as_images(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Sequence[np.ndarray], device: torch.device, levels: Sequence[int] = LEVELS
) -> list[Point]:
    """Runs the model, in evaluation mode, on uint8 images [H, W, 3] of any size; rates are those of rounded latents."""
    was_training = model.training
    model.eval()
    points = []
    for level in levels:
        each = [_evaluate_one(model, image, level, device) for image in images]
        bpp = {name: mean(point.bpp[name] for point in each) for name in each[0].bpp}
        ms_ssim = [point.ms_ssim for point in each if point.ms_ssim is not None]
        points.append(Point(level, bpp, mean(p.psnr for p in each), mean(p.preview_psnr for p in each),
                            mean(ms_ssim) if len(ms_ssim) == len(each) else None))  # fmt: skip
    model.train(was_training)
    return points


def _evaluate_one(model: nn.Module, pixels: np.ndarray, level: int, device: torch.device) -> Point:
    image = to_batch(pixels[None], device)
    h, w = image.shape[-2:]
    padded = F.pad(image, (0, -w % model.alignment, 0, -h % model.alignment), mode="replicate")
    output = model(padded, torch.tensor([level], device=device))
    reference = image if output.reference is None else output.reference
    sides = reference.shape[-2:]
    result, preview = (
        torch.round(x[..., : sides[0], : sides[1]].float().clamp(0, 1) * 255) / 255
        for x in (output.image, output.preview)
    )
    psnr, preview_psnr = (float(decibels((x - reference).square().mean())) for x in (result, preview))
    small = min(sides) < MS_SSIM_LEAST_SIDE
    ms_ssim = None if small else float(decibels(one_minus_ms_ssim(result, reference)))
    bpp = {name: float(bits.sum()) / (h * w) for name, bits in output.bits.items()}
    return Point(level, bpp, psnr, preview_psnr, ms_ssim)
