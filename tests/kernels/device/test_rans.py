from __future__ import annotations

import itertools
import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from cuda_emulator import DeviceMemory, Emulator, Order, view
from hypothesis import given, settings
from hypothesis import strategies as st
from rans_reference import LOW, reference_encode

from condic import kernels
from condic.kernels import StridedBox, Tables
from condic.kernels.device import (
    DECODER,
    ENCODER,
    RESULT,
    ChunkLayout,
    DecodeTargets,
    DeviceTables,
    Prediction,
    StreamLayout,
    chunk_indexes,
    decode_chunk,
    rans_close,
    rans_open,
    rans_pop,
    rans_problem,
    tables_image,
)
from condic.runtime.codec import Codec

Chunks = Sequence[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]
ORDERS: list[Order] = ["forward", "reverse", "random"]

CDFS = [[0, 4096, 28672, 32767, 32768], [0, 32000, 32768], [0, 1, 2, 16000, 32766, 32767, 32768]]


@pytest.fixture(scope="module")
def small_tables() -> Tables:
    """Three tables with large and small frequencies; escapes are likely in the second one."""
    return Tables(np.array(list(itertools.chain(*CDFS)), np.uint16), np.array([1, 0, 2], np.int32))


class Coder:
    """The entropy coder on an emulated GPU."""

    def __init__(self, emulator: Emulator, tables: Tables, order: Order = "forward", seed: int = 0) -> None:
        self._emulator, self._order, self._seed = emulator, order, seed
        self.resident, self.left_over = 3, 0
        """Blocks at a time; what the memory for symbols holds before."""
        self.memory = DeviceMemory()
        image = np.frombuffer(tables_image(tables), np.uint8)
        self._tables = DeviceTables(self.memory.put(image), tables)

    def _run(self, *launches: object) -> None:
        for launch in launches:
            self._emulator.launch(launch, self._order, self._seed, resident=self.resident)

    def encode(self, chunks: Chunks, spare: int = 0, error: int = 0) -> bytes:
        """The payload; each chunk has room for some `spare` elements that are not coded. `error` is there already."""
        rooms = tuple(len(symbols) + spare for symbols, _ in chunks)
        symbols, indexes = self.memory.allocate(2 * sum(rooms)), self.memory.allocate(sum(rooms), 1)
        results = np.zeros(len(rooms), RESULT)
        results["coded"] = [len(symbols) for symbols, _ in chunks]
        stream = StreamLayout(rooms)
        for number, (values, tables) in enumerate(chunks):
            begin = stream.begin(number)
            view(symbols + 2 * begin, len(values), np.int16)[...] = values
            view(indexes + begin, len(values), np.uint8)[...] = tables
        workspace, payload = self.memory.allocate(stream.workspace_bytes), self.memory.allocate(stream.payload_bytes, 1)
        view(workspace, stream.zero_bytes, np.uint8)[...] = 0
        encoder = view(workspace, 1, ENCODER)[0]
        encoder["error"] = error
        self._run(
            *stream.encode(
                self._tables, symbols=symbols, indexes=indexes, results=self.memory.put(results), workspace=workspace,
                payload=payload,
            )
        )  # fmt: skip
        assert encoder["error"] == error
        return view(payload, int(encoder["size"]), np.uint8).tobytes()

    def decode(self, payload: bytes, indexes: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.int16]]:
        """The symbols; raises ValueError where `rans_close` has found a problem."""
        memory = self.memory
        size, decoder = memory.put(np.array([len(payload)], np.uint32)), memory.allocate(DECODER.itemsize)
        self._run(rans_open(memory.put(np.frombuffer(payload, np.uint8), 1), size, decoder))
        decoded = []
        for tables in indexes:
            # A chunk whose scales are the tables' numbers, all of them coded, around means of 0.
            chunk = ChunkLayout(
                (1, 1, max(1, len(tables))), (StridedBox(0, 1, 0, 1, 1, 0, len(tables), 1),), 256, 0, 0, 0
            )
            planes = np.zeros((2, max(1, len(tables))), np.float32)
            planes[1, : len(tables)] = tables
            prediction, result = Prediction(memory.put(planes)), memory.zeros(RESULT.itemsize)
            scan, latents = memory.zeros(chunk.scan_bytes), memory.zeros(4 * max(1, len(tables)))
            found, symbols = memory.allocate(len(tables), 1), memory.allocate(2 * len(tables))
            view(symbols, len(tables), np.int16)[...] = self.left_over
            self._run(
                chunk_indexes(chunk, prediction, indexes=found, result=result, scan=scan),
                rans_pop(self._tables, decoder, indexes=found, result=result, symbols=symbols),
                decode_chunk(
                    chunk,
                    prediction,
                    DecodeTargets(latents),
                    symbols=symbols,
                    result=result,
                    scan=scan,
                    decoder=decoder,
                ),
            )
            decoded.append((view(latents, len(tables), np.int32) // 16).astype(np.int16))
        self._run(rans_close(decoder))
        if problem := rans_problem(int(view(decoder, 1, DECODER)[0]["error"])):
            raise ValueError(problem)
        return decoded


@pytest.fixture
def coder(emulator: Emulator) -> Callable[..., Coder]:
    """Makes coders; arguments are those of `Coder` but the first."""
    return lambda *arguments: Coder(emulator, *arguments)


def assert_same(coder: Coder, tables: Tables, chunks: Chunks, spare: int = 0) -> None:
    """Both coders write the same bytes, and the GPU's reads them."""
    payload = kernels.encode(tables, chunks)
    assert coder.encode(chunks, spare) == payload
    for got, (symbols, _) in zip(coder.decode(payload, [i for _, i in chunks]), chunks, strict=True):
        np.testing.assert_array_equal(got, symbols)
    coder.memory.free_all()


def draw_chunks(seed: int, sizes: list[int], tables: int, outliers: float) -> Chunks:
    """Chunks of Gaussian symbols, a few of them far beyond any radius."""
    generator = np.random.default_rng(seed)
    sigma = np.exp(np.linspace(np.log(0.11), np.log(64.0), 64))
    chunks = []
    for size in sizes:
        indexes = generator.integers(0, tables, size).astype(np.uint8)
        symbols = np.rint(generator.normal(size=size) * sigma[indexes])
        wild = generator.integers(-(2**15), 2**15, size)
        chunks.append((np.where(generator.uniform(size=size) < outliers, wild, symbols).astype(np.int16), indexes))
    return chunks


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.sampled_from(ORDERS),
    st.sampled_from([0.0, 0.001, 0.3]), st.integers(0, 1500), st.sampled_from([1, 16, 64]),
)  # fmt: skip
def test_any_stream_in_any_order_is_that_of_the_host(
    emulator: Emulator, gaussians: Tables, sizes: list[int], seed: int, order: Order, outliers: float, spare: int,
    scales: int,
) -> None:  # fmt: skip
    """Of the first scales alone most symbols are zeros."""
    chunks = draw_chunks(seed, sizes, scales, outliers)
    assert_same(Coder(emulator, gaussians, order, seed), gaussians, chunks, spare)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=64), st.integers(0, 2**32 - 1), st.sampled_from(ORDERS))
def test_any_symbols_survive_small_tables(
    emulator: Emulator, small_tables: Tables, sizes: list[int], seed: int, order: Order
) -> None:
    chunks = draw_chunks(seed, sizes, 3, 0.1)
    assert_same(Coder(emulator, small_tables, order, seed), small_tables, chunks)


@pytest.mark.parametrize(
    ("radii", "escapes"),
    [([0] * 256, 1), ([0] * 256, 32766), ([100] * 256, 1), ([16383], 1), ([16382], 2), ([900, 0], 9)],
)
def test_looks_that_leave_much_out_find_the_same(coder: Callable[..., Coder], radii: list[int], escapes: int) -> None:
    """More tables and intervals than the looks have room for, and tables that escape nearly always."""
    generator = np.random.default_rng(len(radii))
    cdf = []
    for radius in radii:
        inner = np.sort(generator.choice(np.arange(1, 32768 - escapes), 2 * radius, replace=False))
        cdf += [0, *inner.tolist(), 32768 - escapes, 32768]
    tables = Tables(np.array(cdf, np.uint16), np.array(radii, np.int32))
    indexes = generator.integers(0, len(radii), 700).astype(np.uint8)
    reach = np.array(radii)[indexes] + 2
    symbols = generator.integers(-reach, reach + 1).astype(np.int16)
    assert_same(coder(tables, "random", 1), tables, [(symbols, indexes)])


@pytest.mark.parametrize(("size", "lanes"), [(16384, 1), (32768, 2), (65536, 4), (200_000, 4)])
def test_many_symbols_that_hold_nearly_nothing_have_lanes_and_are_found(
    coder: Callable[..., Coder], gaussians: Tables, size: int, lanes: int
) -> None:
    """Zeros for long, and a few others: a latent that a model does not use."""
    symbols, indexes = np.zeros(size, np.int16), np.zeros(size, np.uint8)
    symbols[[5, 900, 901, size // 2, size - 1]] = [1, -1, 2, 3000, 1]
    indexes[size // 4 : size // 3] = 2
    chunks = [(symbols[:9000], indexes[:9000]), (symbols[9000:], indexes[9000:])]
    assert 1 << (kernels.encode(gaussians, chunks)[0] & 7) == lanes
    device = coder(gaussians, "random", 4)
    device.left_over = 77
    assert_same(device, gaussians, chunks)


def test_there_is_room_for_a_payload_of_nothing_but_escapes(coder: Callable[..., Coder]) -> None:
    tables = Tables(np.array([0, 32767, 32768], np.uint16), np.array([0], np.int32))
    assert_same(coder(tables), tables, [(np.full(3000, 2**14, np.int16), np.zeros(3000, np.uint8))])


def test_lanes_are_chosen_as_on_the_host_to_the_symbol(coder: Callable[..., Coder], gaussians: Tables) -> None:
    ((symbols, indexes),) = draw_chunks(9, [12000], len(gaussians), 0.0)

    def lanes(size: int) -> int:
        return kernels.encode(gaussians, [(symbols[:size], indexes[:size])])[0] & 7

    sizes = range(1, 12001)
    for log2_lanes in range(1, lanes(12000) + 1):
        first = sizes[bisect_left(sizes, log2_lanes, key=lanes)]
        for size in (first - 1, first):
            payload = coder(gaussians).encode([(symbols[:size], indexes[:size])])
            assert payload[0] & 7 == lanes(size) == log2_lanes - (size < first)


def test_every_error_has_a_text_of_its_own() -> None:
    assert rans_problem(0) is None
    assert len({rans_problem(1 << bit) for bit in range(8)} - {None}) == 8


def test_what_cannot_be_encoded_has_no_payload(coder: Callable[..., Coder], gaussians: Tables) -> None:
    too_many_escapes = 128
    assert coder(gaussians).encode(draw_chunks(2, [5000], len(gaussians), 0.5), error=too_many_escapes) == b""


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_several_groups_are_those_of_the_host(coder: Callable[..., Coder], gaussians: Tables, order: Order) -> None:
    generator = np.random.default_rng(7)
    chunks = []
    for size in (999, 170_001, 0, 30_000):
        indexes = generator.integers(58, 64, size).astype(np.uint8)
        chunks.append((np.rint(generator.normal(size=size) * 50).astype(np.int16), indexes))
    assert kernels.encode(gaussians, chunks)[:2] == bytes([5 | 8 | 16, 5]), "six groups of 32 lanes, and escapes"
    assert_same(coder(gaussians, order, 3), gaussians, chunks, spare=3000)


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 200), max_size=4), st.integers(0, 5), st.integers(1, 5) | st.just(256),
    st.integers(0, 2**32 - 1), st.sampled_from(ORDERS),
)  # fmt: skip
def test_the_decoder_accepts_any_number_of_lanes_and_groups(
    emulator: Emulator, small_tables: Tables, sizes: list[int], log2_lanes: int, groups: int, seed: int, order: Order
) -> None:
    chunks = draw_chunks(seed, sizes, 3, 0.1)
    stream = [list(zip(symbols.tolist(), indexes.tolist(), strict=True)) for symbols, indexes in chunks]
    coder = Coder(emulator, small_tables, order, seed)
    decoded = coder.decode(reference_encode(CDFS, stream, log2_lanes, groups), [i for _, i in chunks])
    for got, (symbols, _) in zip(decoded, chunks, strict=True):
        np.testing.assert_array_equal(got, symbols)
    coder.memory.free_all()


def host_decode(tables: Tables, payload: bytes, indexes: Sequence[npt.NDArray[np.uint8]]) -> object:
    """The host's symbols, or None for a payload that it finds damaged."""
    try:
        decoder = kernels.Decoder(tables, payload)
        symbols = [decoder.decode(tables) for tables in indexes]
        decoder.finish()
    except ValueError:
        return None
    return symbols


def assert_judged_alike(coder: Coder, tables: Tables, payload: bytes, indexes: list[npt.NDArray[np.uint8]]) -> None:
    """Both decoders give the same symbols, or both an error. The payload's memory is fenced."""
    expected = host_decode(tables, payload, indexes)
    if expected is None:
        with pytest.raises(ValueError, match="the entropy-coded payload is damaged"):
            coder.decode(payload, indexes)
    else:
        for got, symbols in zip(coder.decode(payload, indexes), expected, strict=True):
            np.testing.assert_array_equal(got, symbols)
    coder.memory.free_all()


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_payload_is_judged_as_on_the_host(
    emulator: Emulator, small_tables: Tables, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=3))
    seed = data.draw(st.integers(0, 2**32 - 1))
    chunks = draw_chunks(seed, sizes, 3, 0.1)
    stream = [list(zip(symbols.tolist(), indexes.tolist(), strict=True)) for symbols, indexes in chunks]
    log2_lanes, groups = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 3))
    payload = bytearray(reference_encode(CDFS, stream, log2_lanes, groups))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload)) | st.integers(0, min(12, len(payload))))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change" if at < len(payload):
                payload[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del payload[at : at + data.draw(st.integers(1, 8))]
            case _:
                payload[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    indexes = [tables for _, tables in chunks]
    assert_judged_alike(Coder(emulator, small_tables, "random", seed), small_tables, bytes(payload), indexes)


@settings(max_examples=150)
@given(st.binary(max_size=80), st.lists(st.integers(0, 60), max_size=3), st.integers(0, 2**32 - 1))
def test_any_bytes_are_judged_as_on_the_host(
    emulator: Emulator, small_tables: Tables, payload: bytes, sizes: list[int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    indexes = [generator.integers(0, 3, size).astype(np.uint8) for size in sizes]
    assert_judged_alike(Coder(emulator, small_tables), small_tables, payload, indexes)


ONE_LANE = struct.pack("<I", LOW)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x06" + ONE_LANE * 64, b"\x20" + ONE_LANE, b"\x00", b"\x00" + ONE_LANE[:3], b"\x08", b"\x08\x00" + ONE_LANE,
        b"\x08\x01" + struct.pack("<I", 1) + ONE_LANE * 2, b"\x08\x01" + struct.pack("<I", 2**32 - 1) + ONE_LANE * 2,
        b"\x08\xff" + struct.pack("<I", 2**32 - 1) * 255 + ONE_LANE * 256, b"\x08\xff" + ONE_LANE * 300, b"\x10",
        b"\x10\x00" + ONE_LANE, b"\x10\x81\x00" + ONE_LANE + bytes(2), b"\x10\xff\xff\xff\xff\x01" + ONE_LANE,
        b"\x10\xff\xff\xff\x7f" + ONE_LANE, b"\x00" + struct.pack("<I", LOW - 1),
    ],
)  # fmt: skip
def test_an_impossible_header_is_rejected(coder: Callable[..., Coder], small_tables: Tables, payload: bytes) -> None:
    assert host_decode(small_tables, payload, []) is None
    with pytest.raises(ValueError, match="its header is not valid"):
        coder(small_tables).decode(payload, [])


def test_a_missing_word_is_noticed_even_if_it_would_have_been_zero(coder: Callable[..., Coder]) -> None:
    """One lane in its initial state and no words: symbols of frequency 1 and 2^14 lead back to it by way of a zero."""
    tables = Tables(np.array([0, 1, 32768, 0, 16384, 32768], np.uint16), np.array([0, 0], np.int32))
    indexes = [np.array([0, 1], np.uint8)]
    coder(tables).decode(b"\x00" + ONE_LANE + b"\x00\x00", indexes)
    assert host_decode(tables, b"\x00" + ONE_LANE, indexes) is None
    with pytest.raises(ValueError, match="fewer words"):
        coder(tables).decode(b"\x00" + ONE_LANE, indexes)


def test_the_payloads_of_a_photograph_are_those_of_the_host(
    coder: Callable[..., Coder], codec: Codec, photographs: dict[str, npt.NDArray[np.uint8]]
) -> None:
    tables = Tables(codec.bundle.tables["cdf"], codec.bundle.tables["radius"])
    for latent in codec.host.quantise(photographs["coffee"], 50).latents:
        assert_same(coder(tables, "random", 5), tables, latent.chunks, spare=100)


def test_streams_that_no_launch_can_encode_are_refused() -> None:
    StreamLayout((0,) * 64)
    for rooms in ((), (1,) * 65, (-1,), (2**30,)):
        with pytest.raises(ValueError, match=r"chunk|sizes"):
            StreamLayout(rooms)


def test_steps_that_take_more_words_than_are_held(emulator: Emulator) -> None:
    """Every symbol costs nine bits and lies in its look: 32 lanes need 72 words in four steps."""
    cdf = [*range(0, 511 * 64, 64), 511 * 64, 32768]
    tables = Tables(np.array(cdf, np.uint16), np.array([255], np.int32))
    symbols = np.random.default_rng(3).integers(-255, 256, 24_000).astype(np.int16)
    chunks = [(symbols, np.zeros(symbols.size, np.uint8))]
    assert kernels.encode(tables, chunks)[0] & 7 == 5, "32 lanes"
    assert_same(Coder(emulator, tables, "random", 2), tables, chunks)


def test_a_header_that_is_refused_has_no_escapes_to_read(emulator: Emulator) -> None:
    """It claims 2^28 of them, and the memory for symbols still holds an escape of an earlier image."""
    coder = Coder(emulator, Tables(np.array([0, 32000, 32768], np.uint16), np.array([0], np.int32)))
    coder.left_over = -(2**15)
    with pytest.raises(ValueError, match="header"):
        coder.decode(b"\x10\xff\xff\xff\x7f" + struct.pack("<I", 2**16), [np.zeros(8, np.uint8)])


@pytest.mark.parametrize("order", ORDERS)
def test_tiles_look_back_over_more_unfinished_ones_than_a_warp_has_lanes(
    emulator: Emulator, gaussians: Tables, order: Order
) -> None:
    """As on a GPU, which runs hundreds of blocks at a time."""
    coder = Coder(emulator, gaussians, order, 4)
    coder.resident = 100
    assert_same(coder, gaussians, draw_chunks(4, [90_000], len(gaussians), 0.3))
