"""PSNR and MS-SSIM are those of the published curves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from condic.benchmarks.metrics import decibels, gradient_similarity, ms_ssim, psnr
from condic.errors import InputError

Draw = Callable[..., np.ndarray]


def _noisy(image: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def test_psnr_of_a_constant_error_of_one_is_that_of_the_textbook(drawing: Draw):
    image = drawing(20, 30).clip(0, 254)
    assert psnr(image + 1, image) == pytest.approx(48.1308036, abs=1e-6)


def test_equal_images_have_infinite_psnr_and_a_similarity_of_one(drawing: Draw):
    image = drawing(170, 180)
    assert psnr(image, image) == np.inf
    assert ms_ssim(image, image) == 1
    assert decibels(1.0) == np.inf


@pytest.mark.parametrize("size", [(256, 192), (161, 161), (173, 250)])
def test_ms_ssim_is_that_of_pytorch_msssim_odd_sides_included(drawing: Draw, size: tuple[int, int]):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pytorch_msssim").ms_ssim
    image = drawing(*size)
    noisy = _noisy(image, 25)
    first, second = (torch.from_numpy(x).permute(2, 0, 1)[None].double() for x in (noisy, image))
    assert ms_ssim(noisy, image) == pytest.approx(float(reference(first, second, data_range=255)), abs=3e-6)


@pytest.mark.parametrize(("size", "value"), [((256, 192), 0.930278), ((173, 250), 0.930365)])
def test_ms_ssim_keeps_its_values(drawing: Draw, size: tuple[int, int], value: float):
    image = drawing(*size)
    assert ms_ssim(_noisy(image, 25), image) == pytest.approx(value, abs=3e-6)


def test_more_noise_is_less_similar(drawing: Draw):
    image = drawing(200, 200)
    values = [ms_ssim(_noisy(image, deviation), image) for deviation in (2, 10, 40)]
    assert values == sorted(values, reverse=True)


def test_gradient_similarity_of_one_edge_is_that_of_the_formula():
    flat, edge = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 100, np.uint8)
    edge[:, 8:] = 140
    # halved to 8x8, Prewitt gives 40 in two of six columns and 0 elsewhere
    expected = (4 + 2 * 170 / (40**2 + 170)) / 6
    assert gradient_similarity(edge, flat) == pytest.approx(expected)
    assert gradient_similarity(edge, edge) == 1


def test_a_displaced_edge_is_less_similar_than_a_fainter_one():
    edge, displaced, fainter = (np.full((32, 32, 3), 100, np.uint8) for _ in range(3))
    edge[:, 16:] = 200
    displaced[:, 22:] = 200
    fainter[:, 16:] = 190
    assert gradient_similarity(displaced, edge) < gradient_similarity(fainter, edge)


def test_what_cannot_be_compared_is_refused(drawing: Draw):
    with pytest.raises(InputError, match="one shape"):
        psnr(drawing(8, 8), drawing(8, 9))
    with pytest.raises(InputError, match="161"):
        ms_ssim(drawing(160, 400), drawing(160, 400))
    with pytest.raises(InputError, match="at least 6"):
        gradient_similarity(drawing(5, 9), drawing(5, 9))
    with pytest.raises(InputError, match=r"needs \[H, W, 3\]"):
        gradient_similarity(drawing(9, 9, 4), drawing(9, 9, 4))


def test_ms_ssim_sees_brightness():
    image = np.random.default_rng(0).integers(60, 120, (176, 176, 1)).astype(np.uint8)
    assert ms_ssim(image + np.uint8(60), image) < 0.99
