"""Calibration: what it records of photographs, and the mixtures that fit symbols."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from condic.errors import InputError
from condic.kernels import Tables, gaussian_tables, information_content
from condic.models.codecs import build_codec
from condic.models.entropy import MAGNITUDES, SCALES, mixture_of_scales, plain_gaussians, scale_table
from condic.training import calibration
from condic.training.calibration import calibrate, fit_mixture
from condic.training.data import CropSampler, load_photographs

_TABLE = scale_table().numpy()


def _counts(symbols: dict[int, np.ndarray]) -> torch.Tensor:
    counts = torch.zeros(SCALES, MAGNITUDES, dtype=torch.int64)
    for index, values in symbols.items():
        counts[index] = torch.from_numpy(np.bincount(np.abs(values), minlength=MAGNITUDES))
    return counts


def _bits(mixture: torch.Tensor, index: int, symbols: np.ndarray) -> float:
    """What the coder's tables of a mixture make of symbols, in bits each."""
    tables = Tables(*gaussian_tables(*(x.numpy() for x in mixture_of_scales(scale_table(), mixture))))
    indexes = np.full(symbols.size, index, np.uint8)
    return information_content(tables, symbols.astype(np.int16), indexes) / symbols.size


def _drawn(index: int, mixture: tuple[float, float, float], seed: int, count: int = 200_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    second, *ratios = mixture
    deviation = _TABLE[index] * np.where(rng.random(count) < second, ratios[1], ratios[0])
    return np.rint(rng.normal(size=count) * deviation).astype(np.int64)


@pytest.mark.parametrize("index", [8, 16, 30, 45])
@pytest.mark.parametrize("mixture", [(0.3, 0.7, 1.8), (0.05, 0.9, 2.5), (0.5, 0.3, 0.8)])
def test_tables_of_a_fitted_mixture_are_as_good_as_those_of_the_true_one(
    index: int, mixture: tuple[float, float, float]
) -> None:
    fitted = fit_mixture(_counts({index: _drawn(index, mixture, 0)}))
    true = plain_gaussians(SCALES)
    true[index] = torch.tensor(mixture)
    others = _drawn(index, mixture, 1)
    best, reached, plain = (_bits(x, index, others) for x in (true, fitted, plain_gaussians(SCALES)))
    assert reached < 1.002 * best
    assert reached < plain
    assert torch.equal(fitted[index - 1], plain_gaussians(1)[0]), "an index that no symbol had"


def test_symbols_of_a_gaussian_keep_its_tables() -> None:
    symbols = {index: _drawn(index, (0.0, 1.0, 1.0), index) for index in (4, 20, 40)}
    fitted = fit_mixture(_counts(symbols))
    for index, values in symbols.items():
        assert _bits(fitted, index, values) == pytest.approx(_bits(plain_gaussians(SCALES), index, values), rel=1e-3)


def test_a_few_symbols_change_little() -> None:
    fitted = fit_mixture(_counts({30: np.zeros(10, np.int64)}))
    symbols = _drawn(30, (0.0, 1.0, 1.0), 3)
    assert _bits(fitted, 30, symbols) < 1.01 * _bits(plain_gaussians(SCALES), 30, symbols)


def test_few_symbols_that_lead_the_search_astray_still_give_numbers() -> None:
    counts = torch.zeros(SCALES, MAGNITUDES, dtype=torch.int64)
    seen = {
        19: [4, 3, 5], 20: [82, 31, 14, 5, 1, 2], 21: [4186, 2094, 419, 124, 57, 19, 7],
        22: [1173, 927, 195, 63, 28, 12, 1, 1], 23: [0, 5, 5, 1, 6, 0, 1], 24: [1],
    }  # fmt: skip
    for index, row in seen.items():
        counts[index, : len(row)] = torch.tensor(row)
    fitted = fit_mixture(counts)
    assert fitted.isfinite().all()
    assert (fitted[21] != plain_gaussians(1)[0]).all()


def test_symbols_of_which_the_search_finds_no_numbers_keep_their_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_FIRST_GUESS", (0.2, math.nan, 1.5))
    fitted = fit_mixture(_counts({20: np.array([1, 0, 2]), 30: np.array([40])}))
    assert torch.equal(fitted, plain_gaussians(SCALES))


def test_outliers_are_left_to_the_escape() -> None:
    symbols = _drawn(10, (0.0, 1.0, 1.0), 4)
    fitted = fit_mixture(_counts({10: np.append(symbols, [6, -6] * 20)}))
    assert _bits(fitted, 10, symbols) < 1.001 * _bits(plain_gaussians(SCALES), 10, symbols)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_calibration_sees_all_levels_and_the_ends_often_whatever_the_batch(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    model, seen = build_codec("dcic-sgp", "t"), list[int]()
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda image, level: (seen.extend(level.tolist()), forward(image, level))[1])
    sampler = CropSampler(load_photographs([photographs], 128).images, 128, batch, 64, 0)
    calibrate(model, sampler, torch.device("cpu"), batches=12)
    assert min(seen.count(level) for level in (0, 63)) >= 3
    assert len(set(seen)) > 6


def test_large_batches_do_not_make_calibration_long(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MOST_CROPS", 10)
    model, counted = build_codec("dcic-sgp", "t"), list[tuple[int, bool]]()
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda image, level: (counted.append((len(level), model.training)), forward(image, level))[1]
    )
    sampler = CropSampler(load_photographs([photographs], 128).images, 128, 4, 64, 0)
    calibrate(model, sampler, torch.device("cpu"))
    assert counted == [(4, False)] * 3


@pytest.mark.parametrize(("part", "value"), [("context", float("nan")), ("context", 1e38), ("synthesis", 1e38)])
def test_weights_that_give_no_numbers_are_refused(photographs: Path, part: str, value: float) -> None:
    torch.manual_seed(0)
    model = build_codec("dcic-sgp", "t")
    with torch.no_grad():
        next(getattr(model, part).parameters()).fill_(value)
    sampler = CropSampler(load_photographs([photographs], 128).images, 128, 2, 64, 0)
    with pytest.raises(InputError, match="infinity or NaN: the training has diverged"):
        calibrate(model, sampler, torch.device("cpu"), batches=2)


def test_weights_of_levels_that_no_crop_had_are_looked_at_too(photographs: Path) -> None:
    model = build_codec("dcic-sgp", "t")
    with torch.no_grad():
        model.main_gain.log_gain.anchors[3] = math.nan
    sampler = CropSampler(load_photographs([photographs], 128).images, 128, 1, 64, 0)
    with pytest.raises(InputError, match=r"main_gain\.log_gain.* infinity or NaN"):
        calibrate(model, sampler, torch.device("cpu"), batches=2)  # the lowest level and the highest


@pytest.mark.parametrize("codec", ["dcic-sgp", "cic-sr"])
def test_calibration_fits_the_symbols_of_photographs(codec: str, photographs: Path) -> None:
    torch.manual_seed(0)
    model = build_codec(codec, "t")
    before = model.mixture.clone()
    sampler = CropSampler(load_photographs([photographs], 128).images, 128, 2, 64, 0)
    calibrate(model, sampler, torch.device("cpu"), batches=2)
    once = model.mixture.clone()
    assert (once != before).any()
    assert once.isfinite().all()
    assert model.training
    peaks = [record.peak.clone() for record in model.ranges()]
    for record in model.ranges():
        record.peak.mul_(2)
    calibrate(model.eval(), sampler, torch.device("cpu"), batches=2)
    assert not model.training
    assert torch.equal(model.mixture, once), "what was counted before does not count again"
    assert all(torch.equal(record.peak, peak) for record, peak in zip(model.ranges(), peaks, strict=True))
