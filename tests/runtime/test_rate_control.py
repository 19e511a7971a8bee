"""Rate control: limits are met from the right side, within one level, in few passes."""

from __future__ import annotations

import numpy as np
import pytest

from condic.errors import InputError
from condic.runtime.codec import Codec
from condic.runtime.rate_control import encode_at_psnr, encode_within


@pytest.fixture(scope="module")
def picture(photographs: dict[str, np.ndarray]) -> np.ndarray:
    return photographs["coffee"]


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean(np.square(a.astype(float) - b))))


@pytest.mark.parametrize("level", [0, 17, 40, 63])
def test_a_size_is_met_from_below_within_one_level(codec: Codec, picture: np.ndarray, level: int) -> None:
    limit = len(codec.encode(picture, level)) + 3
    chosen = encode_within(codec, picture, limit)
    assert len(chosen.data) <= limit
    assert chosen.quality == 63 or len(codec.encode(picture, chosen.quality + 1)) > limit
    assert chosen.passes <= 8
    assert chosen.data == codec.encode(picture, chosen.quality)


def test_a_size_below_the_smallest_file_names_the_smallest(codec: Codec, picture: np.ndarray) -> None:
    smallest = len(codec.encode(picture, 0))
    with pytest.raises(InputError, match=f"level 0 takes {smallest}"):
        encode_within(codec, picture, smallest - 1)


def test_a_distortion_is_met_from_above_within_one_level(codec: Codec, picture: np.ndarray) -> None:
    low, high = (_psnr(codec.decode(codec.encode(picture, q)).image, picture) for q in (0, 63))
    target = (low + high) / 2
    chosen = encode_at_psnr(codec, picture, target)
    assert _psnr(codec.decode(chosen.data).image, picture) >= target
    below = codec.encode(picture, chosen.quality - 1)
    assert _psnr(codec.decode(below).image, picture) < target
    assert chosen.passes <= 8


def test_a_distortion_out_of_reach_names_the_best(codec: Codec, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="level 63 has"):
        encode_at_psnr(codec, picture, 90.0)
    assert encode_at_psnr(codec, picture, 1.0).quality == 0
