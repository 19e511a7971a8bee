"""Rate-distortion losses and levels."""

from __future__ import annotations

import pytest
import torch

from condic.models.output import Output
from condic.models.quality import lambda_of_level
from condic.training.losses import decibels, rate_distortion


def test_lambda_is_log_spaced_over_its_range() -> None:
    levels = torch.tensor([0, 21, 42, 63])
    values = lambda_of_level(levels)
    assert values[0] == pytest.approx(0.0005)
    assert values[-1] == pytest.approx(0.09)
    ratios = values[1:] / values[:-1]
    assert torch.allclose(ratios, ratios[0].expand(3))


def test_the_loss_is_rate_plus_lambda_times_squared_error_weighed_by_level() -> None:
    image = torch.full((2, 3, 8, 8), 0.5)
    bits = {"prior": torch.tensor([64.0, 128.0]), "main": torch.tensor([0.0, 64.0])}
    output = Output(image + 0.1, image - 0.2, bits, preview_weight=0.1)
    level = torch.tensor([0, 63])
    loss = rate_distortion(output, image, level, "mse")
    rate = torch.tensor([1.0, 3.0])
    distortion = 255**2 * (0.01 + 0.1 * 0.04)
    weight = torch.tensor([(0.09 / 0.0005) ** 0.25, (0.0005 / 0.09) ** 0.25])  # lambda ** -0.5, 1 in the middle
    expected = (weight * (rate + torch.tensor([0.0005, 0.09]) * distortion)).mean()
    assert loss.total == pytest.approx(float(expected), rel=1e-5)
    assert loss.bpp["prior"] == pytest.approx(1.5)
    assert decibels(loss.mse)[0] == pytest.approx(20.0, abs=1e-3)


def test_bits_of_the_prior_beyond_its_share_cost_three_times_as_much() -> None:
    image = torch.full((1, 3, 8, 8), 0.5)
    level = torch.tensor([63])

    def cost(prior: float, main: float) -> tuple[float, list[float]]:
        """The loss of exact pictures, and what a bit more of each stream adds to it, in plain bits."""
        bits = {"prior": torch.tensor([prior], requires_grad=True), "main": torch.tensor([main], requires_grad=True)}
        weight = (0.0005 / 0.09) ** 0.25 / 64
        loss = rate_distortion(Output(image, image, bits), image, level, "mse", prior_share=0.4)
        loss.total.backward()
        return float(loss.total.detach()) / weight, [float(x.grad) / weight for x in bits.values()]

    assert cost(30.0, 70.0) == (pytest.approx(100), pytest.approx([1, 1]))
    assert cost(60.0, 40.0) == (pytest.approx(100 + 2 * 20), pytest.approx([3, 1]))


def test_the_ms_ssim_loss_falls_with_the_damage() -> None:
    pytest.importorskip("pytorch_msssim")
    image = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([32])

    def total(noise: float) -> float:
        x = image + noise * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
        return float(rate_distortion(Output(x, x, {"main": torch.zeros(1)}), image, level, "ms-ssim").total)

    assert total(0.0) == pytest.approx(0.0, abs=1e-3)
    assert 0 < total(0.05) < total(0.2)


def test_the_ms_ssim_loss_is_that_of_the_library() -> None:
    library = pytest.importorskip("pytorch_msssim")
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(2, 3, 179, 200, generator=generator)
    x = (image + 0.2 * torch.randn(image.shape, generator=generator)).requires_grad_()
    level = torch.tensor([31, 31])
    rate_distortion(Output(x, x, {"main": torch.zeros(2)}), image, level, "ms-ssim").total.backward()
    ours, x.grad = x.grad, None
    theirs = 1 - library.ms_ssim(x.clamp(0, 1), image, data_range=1.0, size_average=False)
    theirs.sum().backward()
    assert torch.nn.functional.cosine_similarity(ours.flatten(), x.grad.flatten(), dim=0) > 0.99999
