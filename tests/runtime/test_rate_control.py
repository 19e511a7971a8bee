"""Rate control: limits are met from the right side, within one level, in few passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.errors import InputError, SizeError
from condic.runtime import rate_control
from condic.runtime.arrays import Tensor
from condic.runtime.codec import Codec
from condic.runtime.once import LevelIndependent
from condic.runtime.pictures import as_picture
from condic.runtime.rate_control import MOST_PASSES, encode_for, last_level
from condic.runtime.timings import Timings


@pytest.fixture(scope="module")
def picture(photographs: dict[str, np.ndarray]) -> np.ndarray:
    return photographs["coffee"]


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean(np.square(a.astype(float) - b))))


@pytest.mark.parametrize("level", [0, 17, 40, 63])
def test_a_size_is_met_from_below_within_one_level(codec: Codec, picture: np.ndarray, level: int) -> None:
    limit = len(codec.encode(picture, level)) + 3
    chosen = encode_for(codec, picture, max_bytes=limit)
    assert len(chosen.data) <= limit
    assert chosen.quality == 63 or len(codec.encode(picture, chosen.quality + 1)) > limit
    assert chosen.passes <= MOST_PASSES
    assert chosen.data == codec.encode(picture, chosen.quality)
    assert encode_for(codec, picture, bpp=(limit + 0.5) * 8 / picture[..., 0].size).data == chosen.data


def test_shipped_weights_meet_sizes_within_3_percent_or_one_level(
    shipped_codec: Codec, photographs: dict[str, np.ndarray]
) -> None:
    for image in photographs.values():
        for level in (9, 41):
            limit = int(1.01 * len(shipped_codec.encode(image, level)))
            chosen = encode_for(shipped_codec, image, max_bytes=limit)
            assert len(chosen.data) <= limit
            if chosen.quality < 63 and len(chosen.data) < 0.97 * limit:
                assert len(shipped_codec.encode(image, chosen.quality + 1)) > limit
            assert chosen.passes <= 5


def test_a_size_below_the_smallest_file_names_the_smallest(codec: Codec, picture: np.ndarray) -> None:
    smallest = len(codec.encode(picture, 0))
    few, bpp = f"{smallest - 1} bytes", (smallest - 0.5) * 8 / picture[..., 0].size
    with pytest.raises(InputError, match=f"^{few} are too few: of those tried, level 0 has the fewest, {smallest}$"):
        encode_for(codec, picture, max_bytes=smallest - 1)
    with pytest.raises(InputError, match=rf"^{few} \({bpp} bits per pixel\) are too few"):
        encode_for(codec, picture, bpp=bpp)


def test_a_backend_that_does_not_take_a_single_block_codes_each_level_in_full(
    codec: Codec, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, limit = codec.graphs.run, len(codec.encode(picture, 20))

    def of_larger_images(role: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        if inputs[0].shape[2:] == (128, 128):
            raise SizeError("no engine takes 128x128")
        return run(role, inputs)

    monkeypatch.setattr(codec.graphs, "run", of_larger_images)
    assert encode_for(codec, picture, max_bytes=limit).data == codec.encode(picture, 20)


@pytest.mark.parametrize("grey", [False, True])
def test_a_distortion_is_met_from_above_within_one_level(codec: Codec, picture: np.ndarray, grey: bool) -> None:
    image = picture[..., 1] if grey else picture
    low, high = (_psnr(codec.decode(codec.encode(image, q)).image, image) for q in (0, 63))
    target = (low + high) / 2
    chosen = encode_for(codec, image, psnr=target)
    assert _psnr(codec.decode(chosen.data).image, image) >= target
    below = codec.encode(image, chosen.quality - 1)
    assert _psnr(codec.decode(below).image, image) < target
    assert chosen.passes <= MOST_PASSES


def test_a_distortion_out_of_reach_names_the_best(codec: Codec, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="level 63 has the most, "):
        encode_for(codec, picture, psnr=90.0)
    assert encode_for(codec, picture, psnr=1.0).quality == 0


@pytest.mark.parametrize("limit", [{"bpp": math.inf}, {"bpp": math.nan}, {"psnr": math.nan}, {"psnr": math.inf}])
def test_limits_that_are_no_numbers_are_refused(codec: Codec, picture: np.ndarray, limit: dict[str, float]) -> None:
    with pytest.raises(InputError, match="finite"):
        encode_for(codec, picture, **limit)


def test_two_limits_are_refused(codec: Codec, picture: np.ndarray) -> None:
    for limits in ({"quality": 3, "psnr": 30.0}, {"max_bytes": 3000, "bpp": 1.0}):
        with pytest.raises(InputError, match="exclude each other"):
            encode_for(codec, picture, **limits)


def test_the_level_counts_metadata_and_alpha(codec: Codec, drawing: Callable[..., np.ndarray]) -> None:
    image = drawing(60, 70, 4)
    limit = len(codec.encode(image, 30)) + 1
    assert encode_for(codec, image, max_bytes=limit).quality >= 30


def test_the_prior_s_analysis_runs_once_and_the_files_stay_the_same(codec: Codec, picture: np.ndarray) -> None:
    runs: list[str] = []

    class Recording(Timings):
        def stage(self, name: str):  # type: ignore[no-untyped-def]
            runs.append(name)
            return super().stage(name)

    chosen = encode_for(codec, picture, max_bytes=len(codec.encode(picture, 45)), timings=Recording())
    assert chosen.passes > 1
    assert runs.count("prior_analysis") == 1
    assert runs.count("analysis") == chosen.passes


def test_what_is_not_a_gain_is_not_taken_for_one(codec: Codec, picture: np.ndarray) -> None:
    """A graph that does anything else with the level's row runs again for each level."""

    class Bent(Codec):
        def __init__(self) -> None:
            super().__init__(codec.bundle)
            run = self.graphs.run

            def bent(role: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
                outputs = run(role, inputs)
                return [outputs[0] + inputs[1].mean()] if role == "prior_analysis" else outputs

            self.graphs.run = bent  # type: ignore[method-assign]

    assert set(LevelIndependent(codec, as_picture(picture)).tensors(3)) == {"prior.y"}
    assert LevelIndependent(Bent(), as_picture(picture)).tensors(3) == {}


def test_what_is_reconstructed_is_what_decoding_gives(codec: Codec, picture: np.ndarray) -> None:
    quantised = codec.host.quantise(picture, 20)
    assert np.array_equal(codec.host.reconstruct(quantised), codec.decode(codec.pack(quantised)).image)
    grey = codec.host.quantise(picture[..., 0], 20)
    coded = replace(grey.picture, rgb=codec.host.reconstruct(grey)).array()
    assert np.array_equal(coded, codec.decode(codec.pack(grey)).image)


@given(
    start=st.floats(5, 30), steps=st.lists(st.floats(0.0001, 2), min_size=64, max_size=64), bound=st.floats(0, 100),
    slope=st.floats(0.001, 5),
)  # fmt: skip
def test_any_rising_measure_is_searched_in_eight_passes(
    start: float, steps: list[float], bound: float, slope: float
) -> None:
    measures = np.cumsum([start, *steps[1:]])
    asked: list[int] = []

    def measure(level: int) -> float:
        asked.append(level)
        return float(measures[level])

    level = last_level(measure, bound, slope)
    assert level == int((measures <= bound).sum()) - 1
    assert len(asked) == len(set(asked)) <= MOST_PASSES
    assert {level, level + 1} & set(range(64)) <= set(asked)


@pytest.mark.parametrize("growth", [1.025, 1.036, 1.045])
def test_an_even_measure_takes_six_passes_at_most(growth: float) -> None:
    asked: list[int] = []

    def octaves(level: int) -> float:
        asked.append(level)
        return math.log2(900 * growth**level)

    for wanted in range(63):
        asked.clear()
        assert last_level(octaves, math.log2(900 * growth**wanted) + 0.01, 1 / 20) == wanted
        assert len(asked) <= 6, wanted


@given(st.lists(st.floats(0, 10), min_size=64, max_size=64), st.floats(0, 10))
def test_a_measure_that_does_not_rise_still_ends_within_the_bound(measures: list[float], bound: float) -> None:
    level = last_level(lambda k: measures[k], bound, 0.1)
    assert level == -1 or measures[level] <= bound
    assert level == 63 or measures[level + 1] > bound


def test_a_level_with_exactly_the_psnr_asked_for_will_do(codec: Codec, drawing: Callable[..., np.ndarray]) -> None:
    image = drawing(40, 50)
    first = encode_for(codec, image, psnr=18)
    exactly = rate_control._psnr(codec.decode(first.data).image, as_picture(image).colours())
    assert encode_for(codec, image, psnr=exactly).quality == first.quality
