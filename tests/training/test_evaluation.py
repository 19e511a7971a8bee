"""What an evaluation reports, by the benchmarks' own metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from condic.benchmarks import metrics
from condic.models.output import Output
from condic.training.evaluation import evaluate

from .conftest import picture

_CPU = torch.device("cpu")


class _Darker(nn.Module):
    """Takes 3 grey levels and a bit away, and more in the preview, at 100 bits for each level."""

    alignment = 64

    def forward(self, image: Tensor, level: Tensor) -> Output:
        """Images [1, 3, H, W] with sides that are multiples of 64."""
        assert [side % 64 for side in image.shape[2:]] == [0, 0]
        return Output(image - 3.4 / 255, image - 9 / 255, {"main": 100.0 * level, "prior": level + 0.0})


def test_quality_is_of_the_8_bit_result_without_its_padding() -> None:
    pytest.importorskip("pytorch_msssim")
    images = [picture(1, 170, 200), picture(2, 161, 161)]
    points = evaluate(_Darker(), images, _CPU, [0, 16])
    assert [p.level for p in points] == [0, 16]
    darker = [np.maximum(image.astype(int) - 3, 0).astype(np.uint8) for image in images]
    pairs = list(zip(darker, images, strict=True))
    assert points[1].psnr == pytest.approx(np.mean([metrics.psnr(*pair) for pair in pairs]), abs=1e-4)
    expected = np.mean([metrics.decibels(metrics.ms_ssim(*pair)) for pair in pairs])
    assert points[1].ms_ssim == pytest.approx(expected, abs=0.02)
    assert points[1].preview_psnr < points[1].psnr - 8
    assert points[1].bpp["main"] == pytest.approx(1600 * np.mean([1 / image[..., 0].size for image in images]))
    assert points[1].rate == pytest.approx(1.01 * points[1].bpp["main"])


def test_ms_ssim_is_left_out_where_an_image_is_too_small_for_it() -> None:
    (point,) = evaluate(_Darker(), [picture(1, 170, 200), picture(2, 160, 200)], _CPU, [16])
    assert point.ms_ssim is None
