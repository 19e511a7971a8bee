"""Rate-distortion losses: R + lambda * D, with a share of the preview's distortion (see `Output`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from condic.models.output import Output
from condic.models.quality import LEVELS, lambda_of_level

BALANCE = -0.5
"""Power of lambda that weighs the levels: R + lambda D grows about as its root, and each level is to count alike."""

EXCESS = 2.0
"""Weight of the prior's bits beyond the share that it may take, on top of their weight as rate: enough for a crop whose
prior would take more to settle at that share."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, from the finest (Wang et al., "Multiscale structural similarity", Asilomar 2003)."""
MS_SSIM_LEAST_SIDE = 161
"""Of an image whose coarsest scale holds the window of 11 x 11."""


@dataclass(frozen=True)
class Loss:
    """What a step minimises, and parts of it for the log.

    `total`: mean over the batch of w * (R + lambda * (a D + b D_preview)), R in bits per pixel, a and b the output's
    weights, and w = 1 in the middle of lambda's range (see `BALANCE`).
    """

    total: Tensor
    bpp: dict[str, Tensor]
    mse: Tensor
    preview_mse: Tensor


def rate_distortion(output: Output, image: Tensor, level: Tensor, kind: str, prior_share: float | None = None) -> Loss:
    """Loss of a batch [B, 3, H, W] in [0, 1]; `kind` is "mse" (255^2 * MSE) or "ms-ssim" (1 - MS-SSIM).

    `prior_share` (0..1) is the part of a crop's bits beyond which those of the prior cost more, see `EXCESS`.
    """
    pixels = image.shape[-1] * image.shape[-2]
    bpp = {name: bits / pixels for name, bits in output.bits.items()}
    rate = sum(bpp.values())
    if prior_share is not None:
        rate = rate + EXCESS * (bpp["prior"] - prior_share * rate.detach()).relu()
    image = image if output.reference is None else output.reference
    mse, preview_mse = (_mse(x, image) for x in (output.image, output.preview))
    if kind == "mse":
        distortion = 255**2 * (output.weight * mse + output.preview_weight * preview_mse)
    else:
        distortion = output.weight * one_minus_ms_ssim(output.image, image)
        if output.preview_weight:
            distortion = distortion + output.preview_weight * one_minus_ms_ssim(output.preview, image)
    weight = (lambda_of_level(level, kind) / lambda_of_level((LEVELS - 1) / 2, kind)) ** BALANCE
    total = (weight * (rate + lambda_of_level(level, kind) * distortion)).mean()
    return Loss(total, {name: x.detach().mean() for name, x in bpp.items()}, mse.detach(), preview_mse.detach())


def _mse(x: Tensor, reference: Tensor) -> Tensor:
    return (x.float() - reference).square().mean(dim=(1, 2, 3))


def one_minus_ms_ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Of each image in a batch [B, 3, H, W] in [0, 1], as `pytorch_msssim.ms_ssim` has it; see `MS_SSIM_LEAST_SIDE`.

    That one multiplies the scales by `torch.prod`, whose backward pass asks the host: no CUDA graph can hold that.
    """
    from pytorch_msssim.ssim import _ssim

    x, window, product = x.float().clamp(0, 1), _window(x.device), torch.ones((), device=x.device)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            padding = [side % 2 for side in x.shape[2:]]
            x, reference = (functional.avg_pool2d(image, 2, padding=padding) for image in (x, reference))
        similarity, contrast = _ssim(x, reference, data_range=1.0, win=window, size_average=False)
        last = scale + 1 == len(MS_SSIM_WEIGHTS)
        product = product * (similarity if last else contrast).relu() ** weight
    return 1 - product.mean(1)


@cache
def _window(device: torch.device) -> Tensor:
    """What MS-SSIM would otherwise take to the device in each step, and wait for."""
    from pytorch_msssim import MS_SSIM

    return MS_SSIM(channel=3).win.to(device)


def decibels(distortion: Tensor) -> Tensor:
    """-10 log10, at most 100: the PSNR of mean squared errors of images in [0, 1], or MS-SSIM in dB of 1 - MS-SSIM."""
    return -10 * torch.log10(distortion.clamp(min=1e-10))
