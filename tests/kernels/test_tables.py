from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.kernels import Tables, gaussian_tables


def one_table(sigma: float) -> np.ndarray:
    """Frequencies of the table for one scale."""
    cdf, _ = gaussian_tables(np.array([sigma]))
    return np.diff(cdf.astype(np.int64))


def gaussian(sigma: float, radius: int) -> np.ndarray:
    tail = [math.erfc(x / (sigma * math.sqrt(2))) / 2 for x in np.arange(-radius - 0.5, radius + 1)]
    return np.array([a - b for a, b in itertools.pairwise(tail)] + [2 * tail[-1]])


@given(st.floats(0.01, 300))
def test_frequencies_are_positive_symmetric_and_add_up(sigma: float) -> None:
    frequencies = one_table(sigma)
    symbols = frequencies[:-1]
    assert frequencies.min() >= 1
    assert frequencies.sum() == 32768
    np.testing.assert_array_equal(symbols, symbols[::-1])
    assert (np.diff(symbols[symbols.size // 2 :]) <= 0).all()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 8.0, 30.0])
def test_quantising_costs_less_than_a_fiftieth_of_a_percent(sigma: float) -> None:
    frequencies = one_table(sigma)
    p = gaussian(sigma, (frequencies.size - 2) // 2)
    length, entropy = -np.sum(p * np.log2(frequencies / 32768)), -np.sum(p * np.log2(p))
    assert entropy <= length < 1.0002 * entropy


@pytest.mark.parametrize("sigma", [0.3, 1.0, 8.0])
def test_moving_a_unit_between_symbols_saves_next_to_nothing(sigma: float) -> None:
    frequencies = one_table(sigma).astype(float)
    p = gaussian(sigma, (frequencies.size - 2) // 2)
    gain = (p * np.log2((frequencies + 1) / frequencies)).max()
    movable = frequencies > 1
    loss = (p * np.log2(frequencies / np.maximum(frequencies - 1, 0.5)))[movable].min()
    assert gain - loss < 1e-7


def test_a_mixture_has_the_probabilities_of_its_parts() -> None:
    scales, weights = [0.8, 2.5], [0.7, 0.3]
    cdf, radius = gaussian_tables(np.array([scales]), np.array([weights]))
    frequencies = np.diff(cdf.astype(int))[:-1] / 32768
    parts = [weight * gaussian(sigma, int(radius[0])) for weight, sigma in zip(weights, scales, strict=True)]
    np.testing.assert_allclose(frequencies, sum(parts)[:-1], atol=1.5 / 32768)
    assert radius[0] == 10, "the wider one's"


def test_a_mixture_with_no_weight_on_the_second_is_the_first() -> None:
    scales = np.array([0.11, 0.9, 7.0, 64.0])
    alone = gaussian_tables(scales)
    pairs = gaussian_tables(np.stack([scales, 3 * scales], axis=1), np.array([[1.0, 0.0]] * 4))
    for table, other in zip(alone, pairs, strict=True):
        np.testing.assert_array_equal(table, other)


@pytest.mark.parametrize("weights", [[[0.5, 0.4]], [[1.5, -0.5]], [[math.nan, 1.0]], [[1.0]], [0.5, 0.5]])
def test_impossible_weights_are_rejected(weights: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="weights"):
        gaussian_tables(np.array([[1.0, 2.0]]), np.array(weights))


def test_the_radius_leaves_little_to_the_escape() -> None:
    cdf, radius = gaussian_tables(np.array([0.01, 1.0, 8.0, 1e6]))
    assert radius.tolist() == [0, 4, 35, 1023]
    assert Tables(cdf, radius).radius.tolist() == [0, 4, 35, 1023]


@pytest.mark.parametrize("scales", [[], [0.0], [-1.0], [math.nan], [math.inf], [1.0] * 257, [[[1.0]]], [[]]])
def test_impossible_scales_are_rejected(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="scale"):
        gaussian_tables(np.array(scales))


@pytest.mark.parametrize(
    ("cdf", "radius", "reason"),
    [
        ([0, 5, 32768], [], "number of tables"),
        ([0, 5, 32768] * 257, [0] * 257, "number of tables"),
        ([0, 5, 32768], [-1], "radius"),
        ([0, 5, 32768], [16384], "radius"),
        ([0, 5, 32768], [1], "ends early"),
        ([0, 5, 32768, 32769], [0], "belong to no table"),
        ([1, 5, 32768], [0], "from 0 to 32768"),
        ([0, 5, 32767], [0], "from 0 to 32768"),
        ([0, 32768, 32768], [0], "rise strictly"),
        ([0, 9, 8, 10, 32768], [1], "rise strictly"),
        ([0, 40000, 32768], [0], "rise strictly"),
    ],
)
def test_impossible_tables_are_rejected(cdf: list[int], radius: list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Tables(np.array(cdf, np.uint16), np.array(radius, np.int32))


def test_tables_of_another_dtype_are_rejected() -> None:
    with pytest.raises(TypeError):
        Tables(np.array([0, 5, 32768], np.int32), np.zeros(1, np.int32))
    with pytest.raises(TypeError):
        Tables(np.array([0, 5, 32768], np.uint16), np.zeros(1, np.int64))


def test_tables_do_not_change_with_the_arrays_they_came_from() -> None:
    cdf = np.array([0, 5, 32768], np.uint16)
    tables = Tables(cdf, np.zeros(1, np.int32))
    cdf[1] = 77
    assert tables.cdf.tolist() == [0, 5, 32768]
    assert not tables.cdf.flags.writeable
