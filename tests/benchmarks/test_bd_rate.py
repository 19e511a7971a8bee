"""BD-rate: exact where it can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from condic.benchmarks.anchors import Anchor, kodak_anchors
from condic.benchmarks.bd_rate import Curve, bd_rate
from condic.benchmarks.rate_distortion import Mean, RateDistortion, compare, curves

CURVE = Curve((0.1, 0.2, 0.4, 0.9), (28.0, 30.5, 33.0, 36.0))


def test_a_curve_against_itself_differs_by_nothing():
    result = bd_rate(CURVE, CURVE)
    assert result is not None
    assert result.percent == pytest.approx(0, abs=1e-9)
    assert (result.low, result.high) == (28.0, 36.0)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3])
def test_a_constant_factor_on_the_rate_is_the_bd_rate(factor: float):
    result = bd_rate(CURVE, Curve(tuple(factor * r for r in CURVE.bpp), CURVE.quality))
    assert result is not None
    assert result.percent == pytest.approx(100 * (factor - 1))


def test_straight_lines_give_the_mean_of_their_distance_over_the_common_range():
    # ln rate = quality against ln rate = 1.5 quality - 1, on [1, 4]: the mean distance is 0.5 * 2.5 - 1.
    def line(slope: float, offset: float, low: int, high: int) -> Curve:
        quality = [float(q) for q in range(low, high + 1)]
        return Curve(tuple(math.exp(slope * q + offset) for q in quality), tuple(quality))

    result = bd_rate(line(1, 0, 0, 4), line(1.5, -1, 1, 6))
    assert result is not None
    assert (result.low, result.high) == (1, 4)
    assert result.percent == pytest.approx(100 * (math.exp(0.25) - 1))


def test_points_that_cost_more_and_are_no_better_do_not_count():
    worse = Curve((*CURVE.bpp, 0.5), (*CURVE.quality, 32.0))
    assert bd_rate(CURVE, worse) == bd_rate(CURVE, CURVE)


def test_curves_with_no_quality_in_common_are_not_compared():
    assert bd_rate(CURVE, Curve((0.1, 0.2, 0.3, 0.4), (40.0, 42.0, 43.0, 44.0))) is None


def test_a_run_says_why_it_has_no_bd_rates():
    def mean(level: int, psnr: float) -> Mean:
        return Mean(level, 0.2 * (level + 1), psnr, 1 - 10 ** (-psnr / 20))

    def run(*curves: list[float]) -> RateDistortion:
        means = {f"codec{k}": tuple(mean(n, psnr) for n, psnr in enumerate(curve)) for k, curve in enumerate(curves)}
        return RateDistortion(dict.fromkeys(means, ""), (), means, tuple(compare("codec0", means, [])))

    other = "not Kodak's 24 images: published curves are left out"
    low, high = [28.0, 29.0, 30.0, 31.0], [35.0, 36.0, 37.0, 38.0]
    assert run(low, [x + 1 for x in low]).gaps() == [other]
    assert run(low, low[:3]).gaps() == ["codec1: BD-rates need 4 levels, not 3", other]
    none = "-: the curves have no quality in common, or fewer than 4 points that rise"
    assert run(low, high).gaps() == [none, other]
    assert run(low, [30.0, 29.0, 31.0, 28.0]).gaps() == [none, other]
    published = Anchor("vtm", "VTM", Curve((0.2, 0.4, 0.6, 0.8), (28.0, 29.0, 30.0, 31.0)), None)
    measured = run(low)
    rates = tuple(compare("codec0", measured.means, [published]))
    assert replace(measured, bd_rate=rates).gaps() == []


def test_three_points_are_no_curve():
    assert bd_rate(CURVE, Curve(CURVE.bpp[:3], CURVE.quality[:3])) is None


def test_of_two_points_with_one_rate_the_better_counts():
    doubled = Curve((0.1, 0.2, 0.2, 0.4, 0.9), (28.0, 29.0, 30.5, 33.0, 36.0))
    assert bd_rate(CURVE, doubled) == bd_rate(CURVE, CURVE)


def test_published_anchors_stand_in_their_known_order():
    anchors = {anchor.name: anchor for anchor in kodak_anchors()}
    assert all(anchor.source for anchor in anchors.values())
    jpeg = bd_rate(anchors["vtm"].psnr, anchors["jpeg"].psnr)
    elic = bd_rate(anchors["vtm"].psnr, anchors["elic"].psnr)
    assert jpeg is not None
    assert elic is not None
    assert jpeg.percent > 100 > 0 > elic.percent


def test_curves_that_only_touch_are_not_compared():
    low, high = (Curve((1, 2, 3, 4), tuple(begin + k for k in range(4))) for begin in (30, 33))
    assert bd_rate(low, high) is None


def test_points_without_loss_do_not_count():
    reference = Curve((1, 2, 3, 4), (30, 31, 32, 33))
    twice = Curve((2, 4, 6, 8, 9), (30, 31, 32, 33, math.inf))
    found = bd_rate(reference, twice)
    assert found is not None
    assert found.percent == pytest.approx(100)


def test_the_codec_under_test_is_compared_with_the_others_and_not_they_with_it():
    def means(factor: float) -> tuple[Mean, ...]:
        return tuple(Mean(k, factor * 2.0**k, 30.0 + k, 1 - 10 ** (-1 - k / 10)) for k in range(5))

    anchor = Anchor("published", "VTM", *curves(means(2.0)))
    for row in compare("own", {"own": means(1.0), "other": means(2.0)}, [anchor]):
        assert row.psnr is not None
        assert row.ms_ssim is not None
        assert (row.psnr.percent, row.ms_ssim.percent) == (pytest.approx(-50), pytest.approx(-50))
        assert (row.ms_ssim.low, row.ms_ssim.high) == (pytest.approx(10), pytest.approx(14))
