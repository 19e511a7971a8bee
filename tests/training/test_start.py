"""Where training starts: a linear codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from condic.models.dcic_sgp import DcicSgp
from condic.training import session
from condic.training.data import CropSampler, load_photographs
from condic.training.evaluation import evaluate, to_batch
from condic.training.start import start_from_photographs, start_from_principal_components

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


def test_a_start_is_from_so_many_pixels_at_least(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_PIXELS_TO_START_FROM", 5 * 128**2)
    sampler = CropSampler(load_photographs([photographs], 128).images, 128, 2, 64, 0)
    assert session._first_crops(sampler).shape == (6, 3, 128, 128)


def test_scales_start_at_those_of_the_latents(photographs: Path) -> None:
    images = load_photographs([photographs], 128).images
    crops, _ = CropSampler(images, 128, 16, 64, 0).at(0)
    models = [DcicSgp("t"), DcicSgp("t")]
    for model, start in zip(models, (start_from_principal_components, start_from_photographs), strict=True):
        start(model, to_batch(crops, _CPU))
        for table in ("log_gain", "log_inverse"):  # the same gains, so that rates are comparable
            for pair in ("prior_gain", "main_gain"):
                getattr(getattr(model, pair), table).load_state_dict(
                    getattr(getattr(models[1], pair), table).state_dict()
                )
    constant, measured = ([p.rate for p in evaluate(model, images[:3], _CPU)] for model in models)
    assert all(b < a for a, b in zip(constant, measured, strict=True))


def test_a_blind_analysis_starts_with_the_same_picture(photographs: Path) -> None:
    crops, _ = CropSampler(load_photographs([photographs], 128).images, 128, 16, 64, 0).at(0)
    image = to_batch(crops, _CPU)
    seeing, blind = (DcicSgp("t", name).eval() for name in (None, "analysis"))
    level = torch.full((len(image),), 63)
    with torch.no_grad():
        for model in (seeing, blind):
            start_from_photographs(model, image)
        errors = [float((model(image, level).image - image).square().mean()) for model in (seeing, blind)]
    assert errors[1] < 2 * errors[0]


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
