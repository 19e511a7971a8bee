from __future__ import annotations

import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.kernels import Decoder, Tables, encode, information_content

Chunks = list[tuple[np.ndarray, np.ndarray]]


def draw_chunks(seed: int, sizes: list[int], scales: int = 64, outliers: float = 0.01) -> Chunks:
    """Chunks of Gaussian symbols, a few of them far beyond any radius."""
    generator = np.random.default_rng(seed)
    sigma = np.exp(np.linspace(np.log(0.11), np.log(64.0), 64))
    chunks = []
    for size in sizes:
        indexes = generator.integers(0, scales, size).astype(np.uint8)
        symbols = np.rint(generator.normal(size=size) * sigma[indexes])
        wild = generator.integers(-(2**15), 2**15, size)
        symbols = np.where(generator.uniform(size=size) < outliers, wild, symbols)
        chunks.append((symbols.astype(np.int16), indexes))
    return chunks


def decodes_to(tables: Tables, payload: bytes | bytearray | memoryview, chunks: Chunks) -> bool:
    decoder = Decoder(tables, payload)
    decoded = [decoder.decode(indexes) for _, indexes in chunks]
    decoder.finish()
    return all(np.array_equal(got, symbols) for got, (symbols, _) in zip(decoded, chunks, strict=True))


@st.composite
def table_sets(draw: st.DrawFn) -> Tables:
    """Up to four tables of arbitrary frequencies."""
    cdfs, radii = [], []
    for _ in range(draw(st.integers(1, 4))):
        radius = draw(st.integers(0, 40))
        inner = draw(st.sets(st.integers(1, 32767), min_size=2 * radius + 1, max_size=2 * radius + 1))
        cdfs.append([0, *sorted(inner), 32768])
        radii.append(radius)
    return Tables(np.concatenate(cdfs).astype(np.uint16), np.array(radii, np.int32))


@given(table_sets(), st.lists(st.integers(0, 3000), max_size=4), st.integers(0, 2**32 - 1))
def test_any_symbols_survive_any_tables(tables: Tables, sizes: list[int], seed: int) -> None:
    chunks = draw_chunks(seed, sizes, scales=len(tables), outliers=0.05)
    assert decodes_to(tables, encode(tables, chunks), chunks)


@pytest.mark.parametrize("sizes", [[], [0], [1], [0, 1, 0], [31, 32, 33], [5000, 0, 7], [400_000, 1, 100_000]])
def test_streams_of_every_size_survive(gaussians: Tables, sizes: list[int]) -> None:
    chunks = draw_chunks(3, sizes)
    assert decodes_to(gaussians, encode(gaussians, chunks), chunks)


def test_every_int16_survives(gaussians: Tables) -> None:
    symbols = np.arange(-(2**15), 2**15).astype(np.int16)
    chunks = [(symbols, np.full(symbols.size, index, np.uint8)) for index in (0, 63)]
    assert decodes_to(gaussians, encode(gaussians, chunks), chunks)


def test_the_widest_table_works() -> None:
    tables = Tables(np.arange(32769, dtype=np.uint16), np.array([16383], np.int32))
    symbols = np.arange(-(2**15), 2**15, 7).astype(np.int16)
    chunks = [(symbols, np.zeros(symbols.size, np.uint8))]
    assert decodes_to(tables, encode(tables, chunks), chunks)


def test_a_stream_without_symbols_has_no_bytes(gaussians: Tables) -> None:
    assert encode(gaussians, []) == b""
    assert encode(gaussians, draw_chunks(0, [0, 0])) == b""
    Decoder(gaussians, b"").finish()


@pytest.mark.parametrize("scales", [12, 30, 50])
@pytest.mark.parametrize("size", [1, 30, 1000, 20_000, 80_000, 200_000])
def test_the_size_is_close_to_the_information(gaussians: Tables, size: int, scales: int) -> None:
    chunks = draw_chunks(size, [size], scales, outliers=0.0)
    payload = encode(gaussians, chunks)
    assert len(payload) <= _allowed(payload, information_content(gaussians, *chunks[0]) / 8)


@pytest.mark.parametrize("scales", [20, 40, 64])
def test_lanes_cost_little_at_any_size(gaussians: Tables, scales: int) -> None:
    """Just above sizes that get more lanes, and between."""
    ((symbols, indexes),) = draw_chunks(3, [1_000_000], scales, outliers=0.0)
    bytes_each = information_content(gaussians, symbols, indexes) / 8e6
    symbols, indexes = np.tile(symbols, 12), np.tile(indexes, 12)
    gains = [1280 << k for k in range(1, 5)] + [(2 * groups - 1) * 15 << 10 for groups in (2, 3, 4, 9)]
    for size in sorted({0, 1, 100, *(gain + 2000 for gain in gains), *range(30_000, 250_000, 29_000), 1_500_000}):
        count = min(len(symbols), int(size / bytes_each))
        payload = encode(gaussians, [(symbols[:count], indexes[:count])])
        assert len(payload) <= _allowed(payload, information_content(gaussians, symbols[:count], indexes[:count]) / 8)


def _allowed(payload: bytes, information: float) -> float:
    """Bytes, as kernels/rans_payload.h promises."""
    first = payload[0] if payload else 0
    loss = 0.004 if first & 8 else 0.0025 if first & 7 == 5 else 0.001
    return (1 + loss) * information + 64


def test_information_counts_an_escape_as_16_bits_more() -> None:
    tables = Tables(np.array([0, 16384, 32768], np.uint16), np.zeros(1, np.int32))
    symbols, indexes = np.array([0, 5, -5], np.int16), np.zeros(3, np.uint8)
    assert information_content(tables, symbols, indexes) == 1 + 17 + 17


def test_a_payload_may_be_any_buffer(gaussians: Tables) -> None:
    chunks = draw_chunks(5, [500])
    payload = encode(gaussians, chunks)
    for buffer in (bytearray(payload), memoryview(payload)):
        assert decodes_to(gaussians, buffer, chunks)


def test_damaged_payloads_never_crash(gaussians: Tables) -> None:
    chunks = draw_chunks(7, [700, 300])
    payload = encode(gaussians, chunks)
    generator = np.random.default_rng(7)
    for trial in range(4000):
        damaged = bytearray(payload)
        if trial % 2:
            for _ in range(generator.integers(1, 4)):
                damaged[generator.integers(len(damaged))] ^= 1 << generator.integers(8)
        else:
            del damaged[generator.integers(len(damaged)) :]
        with suppress(ValueError):
            assert not decodes_to(gaussians, damaged, chunks)


def test_an_error_is_final(gaussians: Tables) -> None:
    chunks = draw_chunks(9, [1000])
    decoder = Decoder(gaussians, encode(gaussians, chunks))
    with pytest.raises(ValueError, match="damaged"):
        decoder.decode(np.zeros(10**6, np.uint8))
    for indexes in (chunks[0][1], np.zeros(0, np.uint8)):
        with pytest.raises(ValueError, match="damaged"):
            decoder.decode(indexes)
    with pytest.raises(ValueError, match="damaged"):
        decoder.finish()


def test_stopping_early_is_noticed(gaussians: Tables) -> None:
    chunks = draw_chunks(11, [1000, 1000])
    decoder = Decoder(gaussians, encode(gaussians, chunks))
    decoder.decode(chunks[0][1])
    with pytest.raises(ValueError, match=r"left over|initial state"):
        decoder.finish()


def test_decoders_work_side_by_side(gaussians: Tables) -> None:
    streams = [draw_chunks(seed, [20_000] * 4) for seed in range(8)]
    payloads = [encode(gaussians, stream) for stream in streams]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda stream: encode(gaussians, stream), streams)) == payloads
        assert all(pool.map(lambda pair: decodes_to(gaussians, *pair), zip(payloads, streams, strict=True)))


def test_an_index_without_a_table_is_rejected(gaussians: Tables) -> None:
    symbols, indexes = np.zeros(3, np.int16), np.array([0, 64, 0], np.uint8)
    with pytest.raises(ValueError, match="names a table"):
        encode(gaussians, [(symbols, indexes)])
    with pytest.raises(ValueError, match="names a table"):
        Decoder(gaussians, encode(gaussians, draw_chunks(0, [3]))).decode(indexes)


def test_symbols_and_indexes_must_be_equally_many(gaussians: Tables) -> None:
    with pytest.raises(ValueError, match="one index for each symbol"):
        encode(gaussians, [(np.zeros(3, np.int16), np.zeros(2, np.uint8))])


@pytest.mark.parametrize(
    "chunk",
    [
        (np.zeros(3, np.int32), np.zeros(3, np.uint8)),
        (np.zeros(3, np.int16), np.zeros(3, np.int8)),
        (np.zeros((3, 1), np.int16), np.zeros((3, 1), np.uint8)),
        (np.zeros(6, np.int16)[::2], np.zeros(3, np.uint8)),
        (np.frombuffer(bytes(7), np.int16, offset=1), np.zeros(3, np.uint8)),
        (np.zeros(3, np.int16),),
        None,
    ],
)
def test_other_arrays_are_rejected(gaussians: Tables, chunk: object) -> None:
    with pytest.raises(TypeError, match="int16"):
        encode(gaussians, [chunk])


@pytest.mark.parametrize("indexes", [np.zeros(3, np.int64), np.zeros(6, np.uint8)[::2], [0, 0, 0], None])
def test_other_indexes_are_rejected(gaussians: Tables, indexes: object) -> None:
    with pytest.raises(TypeError):
        Decoder(gaussians, b"").decode(indexes)


HALF = np.array([0, 16384, 32768], np.uint16)
"""A table whose only symbol, and the escape, have a half each: every symbol takes a bit."""
ONE_LANE = b"\x00" + struct.pack("<I", 1 << 16)


def test_one_missing_word_is_noticed_at_once() -> None:
    decoder = Decoder(Tables(HALF, np.zeros(1, np.int32)), ONE_LANE)
    with pytest.raises(ValueError, match="fewer words"):
        decoder.decode(np.zeros(1, np.uint8))


@pytest.mark.parametrize(("cdf", "radius"), [([0, 32768], [0]), ([0, 5, 32768, 0, 32768], [0, 0])])
def test_tables_that_are_one_value_short_end_early(cdf: list[int], radius: list[int]) -> None:
    with pytest.raises(ValueError, match="ends early"):
        Tables(np.array(cdf, np.uint16), np.array(radius, np.int32))


def test_a_decoder_keeps_its_tables_alive() -> None:
    tables = Tables(HALF, np.zeros(1, np.int32))
    before = sys.getrefcount(tables._native)
    decoder = Decoder(tables, ONE_LANE)
    assert sys.getrefcount(tables._native) > before
    del decoder
