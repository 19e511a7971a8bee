"""Estimated rate and distortion of a model in training on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.training.losses import psnr

LEVELS = (0, 16, 32, 48, 63)


@dataclass(frozen=True)
class Point:
    """Mean over the images at one level: bits per pixel of each stream, PSNR in dB of the 8-bit result and preview."""

    level: int
    bpp: dict[str, float]
    psnr: float
    preview_psnr: float

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
        rows = [_evaluate_one(model, image, level, device) for image in images]
        mean = np.mean([[p, v] for p, v, _ in rows], axis=0)
        bpp = {name: float(np.mean([bits[name] for *_, bits in rows])) for name in rows[0][2]}
        points.append(Point(level, bpp, float(mean[0]), float(mean[1])))
    model.train(was_training)
    return points


def _evaluate_one(
    model: nn.Module, pixels: np.ndarray, level: int, device: torch.device
) -> tuple[float, float, dict[str, float]]:
    image = to_batch(pixels[None], device)
    h, w = image.shape[-2:]
    padded = F.pad(image, (0, -w % model.alignment, 0, -h % model.alignment), mode="replicate")
    output = model(padded, torch.tensor([level], device=device))
    quality = []
    reference = image if output.reference is None else output.reference
    h_out, w_out = reference.shape[-2:]
    for x in (output.image, output.preview):
        rounded = torch.round(x[..., :h_out, :w_out].float().clamp(0, 1) * 255) / 255
        quality.append(float(psnr((rounded - reference).square().mean())))
    return quality[0], quality[1], {name: float(bits.sum()) / (h * w) for name, bits in output.bits.items()}
