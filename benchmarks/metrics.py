"""PSNR and MS-SSIM of 8-bit RGB images, as the published curves of learned codecs take them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from condic.errors import InputError
from condic.runtime.arrays import Pixels

Plane = npt.NDArray[np.float64]

PEAK = 255.0
SMALLEST_SIDE = 161
"""MS-SSIM needs this many pixels a side: its window of 11 must fit the image four times halved."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
_LUMA = np.array([0.299, 0.587, 0.114])
_GRADIENT_C = 170.0
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(image: Pixels, reference: Pixels) -> float:
    """Peak signal-to-noise ratio in dB: mean squared error over all pixels and channels, peak 255. Infinite if equal.

    Both uint8 of one shape; InputError otherwise.
    """
    _check(image, reference)
    difference = image.astype(np.float64) - reference
    error = float(np.mean(np.square(difference)))
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


def ms_ssim(image: Pixels, reference: Pixels) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli, Bovik, Asilomar 2003), 1 if equal.

    Both uint8 [H, W, C], sides of at least 161; InputError otherwise. Five scales, Gaussian window of 11x11 with sigma
    1.5, valid borders, scales halved by averaging 2x2 pixels; each channel on its own, then their mean. An odd side
    is padded by a zero in front before it is halved, as pytorch-msssim does, whose values these are.
    """
    _check(image, reference)
    check_size(image)
    channels = [_ms_ssim_of_plane(image[:, :, c], reference[:, :, c]) for c in range(image.shape[2])]
    return float(np.mean(channels))


def check_size(image: Pixels) -> None:
    """Raises InputError for an image that is too small for `ms_ssim`."""
    if image.ndim != 3 or min(image.shape[:2]) < SMALLEST_SIDE:
        raise InputError(f"MS-SSIM needs [H, W, C] with sides of at least {SMALLEST_SIDE}, not {image.shape}")


def gradient_similarity(image: Pixels, reference: Pixels) -> float:
    """Gradient magnitude similarity (Xue et al., IEEE TIP 2014), mean over the image, 1 if equal: edges kept in shape.

    Both uint8 [H, W, 3] of one shape, sides of at least 6; InputError otherwise. Luma, halved by averaging 2x2 pixels
    (an odd side gets a zero in front), Prewitt gradients, c = 170 on the scale 0..255.
    """
    _check(image, reference)
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 6:
        raise InputError(f"gradient similarity needs [H, W, 3] with sides of at least 6, not {image.shape}")
    a, b = (_prewitt(_halve(x @ _LUMA)) for x in (image, reference))
    return float(np.mean((2 * a * b + _GRADIENT_C) / (a * a + b * b + _GRADIENT_C)))


def decibels(similarity: float) -> float:
    """MS-SSIM on the scale on which curves are drawn and compared: -10 log10(1 - s)."""
    return -10 * math.log10(1 - similarity) if similarity < 1 else math.inf


def _prewitt(x: Plane) -> Plane:
    """Magnitude of the gradient in 3x3 windows, [H - 2, W - 2]."""
    rows, columns = (x[:-2] + x[1:-1] + x[2:]) / 3, (x[:, :-2] + x[:, 1:-1] + x[:, 2:]) / 3
    magnitude: Plane = np.hypot(rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2])
    return magnitude


def _ms_ssim_of_plane(image: Pixels, reference: Pixels) -> float:
    x, y = image.astype(np.float64), reference.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(_WEIGHTS):
        structure, similarity = _ssim(x, y)
        last = scale + 1 == len(_WEIGHTS)
        product *= max(similarity if last else structure, 0.0) ** weight
        if not last:
            x, y = _halve(x), _halve(y)
    return product


def _ssim(x: Plane, y: Plane) -> tuple[float, float]:
    """Means of the contrast-structure term and of the whole similarity."""
    mean_x, mean_y = _blur(x), _blur(y)
    squares = mean_x * mean_x + mean_y * mean_y
    variances = _blur(x * x) + _blur(y * y) - squares
    product = mean_x * mean_y
    structure = (2 * (_blur(x * y) - product) + _C2) / (variances + _C2)
    luminance = (2 * product + _C1) / (squares + _C1)
    return float(structure.mean()), float((luminance * structure).mean())


def _blur(x: Plane) -> Plane:
    taps = np.exp(-((np.arange(_WINDOW) - _WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        size = x.shape[axis] - _WINDOW + 1
        shifted = (x[k : k + size] if axis == 0 else x[:, k : k + size] for k in range(_WINDOW))
        total = np.zeros((size, x.shape[1]) if axis == 0 else (x.shape[0], size))
        for tap, part in zip(taps, shifted, strict=True):
            total += tap * part
        x = total
    return x


def _halve(x: Plane) -> Plane:
    rows, columns = x.shape
    x = np.pad(x, ((rows % 2, 0), (columns % 2, 0)))
    halved: Plane = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
    return halved


def _check(image: Pixels, reference: Pixels) -> None:
    if image.shape != reference.shape or image.dtype != np.uint8 or reference.dtype != np.uint8:
        raise InputError(f"two uint8 images of one shape are needed, not {image.dtype} {image.shape} and "
                         f"{reference.dtype} {reference.shape}")  # fmt: skip
