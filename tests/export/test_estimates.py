"""What training believes of the model that ships is what its files are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from condic.models.cic_sr import CicSr  # noqa: E402
from condic.models.dcic_sgp import DcicSgp  # noqa: E402
from condic.models.weights import load_weights  # noqa: E402
from condic.runtime.codec import load_codec  # noqa: E402
from condic.runtime.shipped import shipped_folder  # noqa: E402
from condic.training.evaluation import evaluate  # noqa: E402


@pytest.fixture(scope="module")
def model() -> DcicSgp:
    model = DcicSgp("s").eval()
    load_weights(model, shipped_folder() / "dcic-sgp-s.safetensors")
    with torch.no_grad():
        model.freeze()
    return model


@pytest.mark.parametrize("level", [0, 32])
@torch.no_grad()
def test_every_element_is_coded(model: DcicSgp, level: int, photographs: dict[str, npt.NDArray[np.uint8]]) -> None:
    """At the lowest level too, where nearly all have the smallest scales: those that do not fit theirs cost little."""
    pytest.importorskip("onnxruntime")
    image = np.tile(photographs["coffee"], (2, 2, 1))[:256, :256]
    codec, at = load_codec("dcic-sgp-s", "ort"), torch.tensor([level])
    data = codec.encode(image, level)
    decoded = codec.decode(data, latents=True)
    prior, main = (torch.from_numpy(decoded.latents[name]).float()[None] / 16 for name in ("prior", "main"))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    gain, inverse = model.prior_gain(at)
    assert (prior - model.prior_analysis(pixels, gain)).abs().max() < 0.51
    f8, f16, _ = model.prior_synthesis(prior, inverse)
    assert (main - model.analysis(pixels, f8, f16, model.main_gain(at)[0])).abs().max() < 0.51

    (point,) = evaluate(model, [image], torch.device("cpu"), [level])
    error = np.mean((decoded.image.astype(float) - image) ** 2)
    assert 10 * np.log10(255**2 / error) == pytest.approx(point.psnr, abs=0.15)  # a few roundings fall otherwise
    framing = 8 * 120
    # Tables of counted symbols are better than the Gaussians that are estimated with.
    assert 0.85 < (8 * len(data) - framing) / (point.rate * image.shape[0] * image.shape[1]) < 1.01


@torch.no_grad()
def test_what_training_believes_of_cic_sr_is_what_its_files_are(photographs: dict[str, npt.NDArray[np.uint8]]) -> None:
    """Order of chunks, residuals and offsets of scales: encoder and decoder would agree on others, too."""
    pytest.importorskip("onnxruntime")
    model = CicSr("s").eval()
    load_weights(model, shipped_folder() / "cic-sr-s.safetensors")
    image = np.tile(photographs["coffee"], (2, 2, 1))[:256, :256]
    codec = load_codec("cic-sr-s", "ort")
    data = codec.encode(image, 40)
    (point,) = evaluate(model, [image], torch.device("cpu"), [40])
    error = np.mean((codec.decode(data).image.astype(float) - image) ** 2)
    assert 10 * np.log10(255**2 / error) == pytest.approx(point.psnr, abs=0.05)
    framing = 8 * 120
    assert 0.9 < (8 * len(data) - framing) / (point.rate * image.shape[0] * image.shape[1]) < 1.03
