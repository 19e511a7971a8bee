"""Guarded rounding: what the encoder notes, and that a decoder with other last bits comes to the same integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.errors import StreamError
from condic.runtime import guard
from condic.runtime.guard import GuardReader, GuardWriter, count_noted, pack, unpack
from condic.runtime.manifest import Deltas, Guard

entries = st.lists(st.tuples(st.integers(0, 2000), st.booleans()), max_size=60)


@given(entries)
def test_a_list_survives_packing(gaps):
    positions = np.cumsum([gap + 1 for gap, _ in gaps]).tolist()
    sides = [side for _, side in gaps]
    assert list(unpack(pack(positions, sides))) == list(zip(positions, sides, strict=True))


def test_the_bytes_of_a_list_are_what_the_format_says():
    # count 3; k 1; gaps 5, 0, 9 as unary quotient, one bit of remainder, side: 110 1 1, 0 0 0, 11110 1 1; padding
    assert pack([5, 6, 16], [True, False, True]) == bytes([3, 1, 0b11011000, 0b11110110])
    assert pack([], []) == b"\0"


@pytest.mark.parametrize("piece", [1, 3, 64])
def test_a_list_is_the_same_whatever_pieces_it_is_read_in(piece, monkeypatch):
    rng = np.random.default_rng(piece)
    positions = np.cumsum(rng.geometric(0.01, 500) ** 2).tolist()
    sides = rng.integers(0, 2, 500).astype(bool).tolist()
    data = pack(positions, sides)
    monkeypatch.setattr(guard, "_PIECE", piece)
    assert list(unpack(data)) == list(zip(positions, sides, strict=True))
    for wrong, message in ((data[:-1], "ends early"), (data + b"\0", "after its end"), (data + b"\1", "after its end")):
        with pytest.raises(StreamError, match=message):
            list(unpack(wrong))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_list_or_a_stream_error(data):
    try:
        positions = [position for position, _ in unpack(data)]
    except StreamError:
        return
    assert len(positions) <= 8 * len(data)
    assert positions == sorted(set(positions))


@pytest.mark.parametrize("cut", range(4))
def test_a_shortened_list_is_refused(cut):
    with pytest.raises(StreamError, match="guard"):
        list(unpack(pack([5, 6, 16], [True, False, True])[:cut]))


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 0.25))
def test_a_decoder_within_delta_rounds_as_the_encoder_did(seed, delta):
    rng = np.random.default_rng(seed)
    arrays = [(rng.normal(0, 3, n) * 8).round(1) / 8 + rng.normal(0, delta, n) for n in (0, 500, 1, 300)]
    encoding = GuardWriter()
    codes = [encoding.round(x, delta) for x in arrays]
    decoding = GuardReader(encoding.payload())
    for values, wanted in zip(arrays, codes, strict=True):
        disturbed = values + rng.uniform(-0.999, 0.999, values.shape) * delta
        np.testing.assert_array_equal(decoding.round(disturbed, delta), wanted)
    decoding.finish()


def test_only_values_near_a_boundary_are_noted_and_ties_go_up():
    encoding = GuardWriter()
    values = np.array([0.0, 0.5, 0.4999, -0.5, -1.51, 0.48, 7.4])
    assert encoding.round(values, 0.015).tolist() == [0, 1, 0, 0, -2, 0, 7]
    assert list(unpack(encoding.payload())) == [(1, True), (2, False), (3, True), (4, False)]


def test_what_is_beyond_all_codes_becomes_the_last_one():
    assert GuardWriter().round(np.array([1e30, -1e30, np.inf]), 0.1).tolist() == [2**20, -(2**20), 2**20]


def test_a_list_that_goes_on_beyond_the_values_is_refused():
    decoding = GuardReader(pack([9], [True]))
    decoding.round(np.zeros(9), 0.1)
    with pytest.raises(StreamError, match="values that the file does not have"):
        decoding.finish()


def test_a_level_between_two_has_the_wider_delta_of_each_quantity():
    low, middle, high = Deltas(0.1, 0.3, 0.1), Deltas(0.2, 0.1, 0.1), Deltas(0.1, 0.2, 0.4)
    rule = Guard(4, 1, (10, 32, 60), (low, middle, high))
    assert [rule.at(level) for level in (0, 10, 32, 60, 63)] == [low, low, middle, high, high]
    assert rule.at(11) == rule.at(31) == Deltas(0.2, 0.3, 0.1)
    assert rule.at(33) == Deltas(0.2, 0.2, 0.4)


def test_positions_beyond_any_file_are_refused():
    with pytest.raises(StreamError, match="no file has"):
        list(unpack(bytes([1, 39]) + b"\xff" * 2**21 + bytes(8)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(bytes([1, 40]) + bytes(7), "gaps with 40 bits; 39 are", id="a remainder of 40 bits"),
        pytest.param(b"\x80" * 9 + b"\0", "is not a list", id="a number of 10 bytes"),
        pytest.param(bytes([17, 0]), "is not a list", id="more values than bits"),
        pytest.param(bytes([0, 1]), "after its end", id="more than an empty list"),
        pytest.param(bytes([1, 0, 1]), "after its end", id="padding that is not zero"),
    ],
)
def test_what_the_format_does_not_have_is_refused(data, message):
    with pytest.raises(StreamError, match=message):
        list(unpack(data))


def test_a_list_longer_than_the_image_takes_no_memory(at_most_allocated):
    entries = 2**22
    payload = pack(range(entries), [True] * entries)
    assert count_noted(payload) == entries
    with at_most_allocated(2**20):
        decoding = GuardReader(payload, entries)
        decoding.round(np.zeros(10), 0.1)
    with pytest.raises(StreamError, match="values that the file does not have"):
        GuardReader(payload, entries - 1)
