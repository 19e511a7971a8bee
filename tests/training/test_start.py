"""Where training starts: a linear codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from condic.models.dcic_sgp import DcicSgp
from condic.training.data import CropSampler, load_photographs
from condic.training.evaluation import evaluate, to_batch
from condic.training.start import start_from_principal_components

_CPU = torch.device("cpu")


def test_the_first_step_already_codes_pictures(photographs: Path) -> None:
    images = load_photographs([photographs], 128).images
    crops, _ = CropSampler(images, 128, 16, 64, 0).at(0)
    torch.manual_seed(0)
    random, started = DcicSgp("t"), DcicSgp("t")
    start_from_principal_components(started, to_batch(crops, _CPU))
    before, after = (evaluate(model, images[:2], _CPU, [63])[0] for model in (random, started))
    assert after.psnr > before.psnr + 6
    assert after.preview_psnr > before.preview_psnr + 6


def test_the_main_latent_is_what_the_preview_lacks(photographs: Path) -> None:
    crops, _ = CropSampler(load_photographs([photographs], 128).images, 128, 16, 64, 0).at(0)
    image = to_batch(crops, _CPU)
    model = DcicSgp("t").eval()
    start_from_principal_components(model, image)
    one = torch.ones(1)
    with torch.no_grad():
        f8, f16, preview = model.prior_synthesis(model.prior_analysis(image, one), one)
        y = model.analysis(image, f8, f16, one)
        expected = model.analysis.head(model.analysis.down(torch.nn.functional.conv2d(
            image - preview, model.analysis.stem.weight, stride=8
        )))  # fmt: skip
        assert torch.allclose(y, expected, atol=1e-4)
        whole = model.synthesis(y, one, f8, f16, preview)
    error = {
        name: float(np.mean(np.square((x - image).numpy()))) for name, x in (("preview", preview), ("both", whole))
    }
    assert error["both"] < 0.7 * error["preview"]
