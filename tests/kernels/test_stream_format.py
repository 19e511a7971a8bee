"""The payload byte by byte, against a second implementation written from the description in rans_stream.h."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rans_reference import LOW, Stream, reference_encode

from condic.kernels import Decoder, Tables, encode

CDFS = [[0, 4096, 28672, 32767, 32768], [0, 32000, 32768], [0, 1, 2, 16000, 32766, 32767, 32768]]
RADIUS = [1, 0, 2]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables(np.array(list(itertools.chain(*CDFS)), np.uint16), np.array(RADIUS, np.int32))


def as_chunks(stream: Stream) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array([s for s, _ in chunk], np.int16), np.array([t for _, t in chunk], np.uint8)) for chunk in stream]


def decode(tables: Tables, payload: bytes, stream: Stream) -> Stream:
    decoder = Decoder(tables, payload)
    decoded = [
        [(int(s), int(t)) for s, t in zip(decoder.decode(indexes), indexes, strict=True)]
        for _, indexes in as_chunks(stream)
    ]
    decoder.finish()
    return decoded


def symbols_of(index: int) -> st.SearchStrategy[tuple[int, int]]:
    likely = st.integers(-RADIUS[index], RADIUS[index])
    return st.tuples(likely | likely | st.integers(-(2**15), 2**15 - 1), st.just(index))


streams = st.lists(st.lists(st.integers(0, 2).flatmap(symbols_of), max_size=150), max_size=4)

GOLDEN: Stream = [[(0, 0), (1, 0), (-1, 0), (0, 1), (-300, 1)], [], [(2, 2), (-1, 2), (0, 2), (0, 0), (0, 0), (1, 0)]]
GOLDEN_PAYLOAD = bytes.fromhex("10 01 d9ae9274 0100 0cac d4fe")


def test_a_small_stream_has_exactly_these_bytes(tables: Tables) -> None:
    assert encode(tables, as_chunks(GOLDEN)).hex() == GOLDEN_PAYLOAD.hex()


def test_the_exact_bytes_decode(tables: Tables) -> None:
    assert decode(tables, GOLDEN_PAYLOAD, GOLDEN) == GOLDEN


def test_a_large_stream_has_several_groups(tables: Tables) -> None:
    generator = np.random.default_rng(1)
    chunks = [(generator.integers(-2, 3, n, np.int16), generator.integers(0, 3, n, np.uint8)) for n in (999, 130_000)]
    stream = [list(zip(symbols.tolist(), indexes.tolist(), strict=True)) for symbols, indexes in chunks]
    assert encode(tables, chunks) == reference_encode(CDFS, stream, log2_lanes=5, groups=4)


@given(streams)
def test_the_encoder_writes_what_the_description_says(tables: Tables, stream: Stream) -> None:
    payload = encode(tables, as_chunks(stream))
    assert payload == (reference_encode(CDFS, stream, payload[0] & 7, 1) if any(stream) else b"")


@given(streams, st.integers(0, 5), st.integers(1, 5) | st.just(256))
def test_the_decoder_accepts_any_number_of_lanes_and_groups(
    tables: Tables, stream: Stream, log2_lanes: int, groups: int
) -> None:
    assert decode(tables, reference_encode(CDFS, stream, log2_lanes, groups), stream) == stream


ONE_LANE = struct.pack("<I", LOW)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x06" + ONE_LANE * 64, "first byte"),
        (b"\x20" + ONE_LANE, "first byte"),
        (b"\x00", "size does not fit"),
        (b"\x00" + ONE_LANE[:3], "size does not fit"),
        (b"\x00" + ONE_LANE + b"\x00", "size does not fit"),
        (b"\x05" + ONE_LANE * 31, "size does not fit"),
        (b"\x08", "ends within its header"),
        (b"\x08\x00" + ONE_LANE, "number of groups is not in shortest form"),
        (b"\x08\x01" + struct.pack("<I", 1) + ONE_LANE * 2, "groups are larger"),
        (b"\x08\x01" + struct.pack("<I", 2**32 - 1) + ONE_LANE * 2, "groups are larger"),
        (b"\x08\xff" + ONE_LANE * 300, "size does not fit"),
        (b"\x10", "ends within its header"),
        (b"\x10\x00" + ONE_LANE, "number of escapes is not in shortest form"),
        (b"\x10\x81\x00" + ONE_LANE + bytes(2), "number of escapes is not in shortest form"),
        (b"\x10\xff\xff\xff\xff\x01" + ONE_LANE, "number of escapes is not in shortest form"),
        (b"\x10\xff\xff\xff\x7f" + ONE_LANE, "size does not fit"),
        (b"\x00" + struct.pack("<I", LOW - 1), "state is below"),
    ],
)
def test_an_impossible_header_is_rejected(tables: Tables, payload: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Decoder(tables, payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x00" + ONE_LANE + b"\x01\x00", "words are left over"),
        (b"\x00" + struct.pack("<I", LOW + 1), "initial state"),
        (b"\x10\x01" + ONE_LANE + b"\x07\x00", "escaped values are left over"),
    ],
)
def test_what_is_left_over_is_noticed_at_the_end(tables: Tables, payload: bytes, reason: str) -> None:
    decoder = Decoder(tables, payload)
    with pytest.raises(ValueError, match=reason):
        decoder.finish()
    with pytest.raises(ValueError, match="damaged"):
        decoder.decode(np.zeros(1, np.uint8))


def test_a_missing_escaped_value_is_noticed(tables: Tables) -> None:
    decoder = Decoder(tables, b"\x00" + struct.pack("<IH", LOW | 32767, 0))
    with pytest.raises(ValueError, match="fewer escaped values"):
        decoder.decode(np.zeros(1, np.uint8))


def test_a_missing_word_is_noticed(tables: Tables) -> None:
    decoder = Decoder(tables, b"\x00" + ONE_LANE)
    with pytest.raises(ValueError, match="fewer words"):
        decoder.decode(np.full(20, 2, np.uint8))
