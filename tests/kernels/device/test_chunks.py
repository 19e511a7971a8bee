from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from cuda_emulator import DeviceMemory, Emulator, LaunchError, Order, view
from hypothesis import given, settings
from hypothesis import strategies as st

from condic import kernels
from condic.kernels import StridedBox
from condic.kernels.device import (
    RESULT,
    ChunkLayout,
    DecodeTargets,
    Prediction,
    chunk_indexes,
    decode_chunk,
    encode_chunk,
)
from condic.kernels.device.chunks import _divisor
from condic.runtime import latents as latents_module
from condic.runtime.codec import Codec

Array = npt.NDArray[np.generic]


@dataclass
class Results:
    """What coding a chunk leaves behind."""

    symbols: npt.NDArray[np.int16]
    indexes: npt.NDArray[np.uint8]
    checksum: int
    latents: npt.NDArray[np.int32]
    context: npt.NDArray[np.float32]
    hat: npt.NDArray[np.float32]


def on_host(chunk: ChunkLayout, planes: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> Results:
    """The chunk of a latent of zeros by the host's kernels."""
    boxes = np.array(chunk.boxes, np.int32).reshape(-1, 8)
    mean, scale = np.empty(chunk.size, np.int16), np.empty(chunk.size, np.uint8)
    kernels.store_distribution(planes, (0, 0), chunk.shape, boxes, chunk.scales, mean, scale)
    latents = np.zeros(chunk.shape, np.int32)
    symbols, indexes, checksum = kernels.quantise_chunk(y, mean, scale, boxes, chunk.first_coded, latents)
    _, rows, columns = chunk.shape
    context = kernels.context_inputs(latents, (0, rows), (0, columns), chunk.context_shift, chunk.context_limit)
    return Results(symbols, indexes, checksum, latents, context, latents.astype(np.float32) * np.float32(1 / 16))


class Device:
    """Buffers of a latent and of a chunk on an emulated GPU."""

    def __init__(self, emulator: Emulator, chunk: ChunkLayout, order: Order, seed: int) -> None:
        self.memory = DeviceMemory()
        self._emulator, self._chunk, self._order, self._seed = emulator, chunk, order, seed
        elements = int(np.prod(chunk.shape))
        self.decoded = DecodeTargets(*(self.memory.zeros(4 * elements) for _ in range(3)))
        self.symbols, self.indexes = self.memory.allocate(2 * chunk.size), self.memory.allocate(chunk.size, 1)
        self.result, self.scan = self.memory.zeros(RESULT.itemsize), self.memory.zeros(chunk.scan_bytes)
        self.not_finite = self.memory.zeros(4)

    def encode(self, prediction: Prediction, y: npt.NDArray[np.float32]) -> Results:
        self._emulator.launch(
            encode_chunk(
                self._chunk, prediction, self.memory.put(y), self.decoded, symbols=self.symbols, indexes=self.indexes,
                result=self.result, scan=self.scan, not_finite=self.not_finite,
            ),
            self._order, self._seed,
        )  # fmt: skip
        return self._results()

    def decode(self, prediction: Prediction, symbols: npt.NDArray[np.int16]) -> Results:
        launch = chunk_indexes(self._chunk, prediction, indexes=self.indexes, result=self.result, scan=self.scan)
        self._emulator.launch(launch, self._order, self._seed)
        view(self.symbols, symbols.shape, np.int16)[...] = symbols
        launch = decode_chunk(
            self._chunk, prediction, self.decoded, symbols=self.symbols, result=self.result, scan=self.scan
        )
        self._emulator.launch(launch, self._order, self._seed)
        return self._results()

    def _results(self) -> Results:
        coded, checksum = (int(x) for x in view(self.result, 2, np.uint32))
        shape = self._chunk.shape
        return Results(
            view(self.symbols, coded, np.int16).copy(), view(self.indexes, coded, np.uint8).copy(), checksum,
            view(self.decoded.latents, shape, np.int32).copy(), view(self.decoded.context, shape, np.float32).copy(),
            view(self.decoded.hat, shape, np.float32).copy(),
        )  # fmt: skip


def assert_equal(got: Results, expected: Results) -> None:
    np.testing.assert_array_equal(got.symbols, expected.symbols)
    np.testing.assert_array_equal(got.indexes, expected.indexes)
    assert got.checksum == expected.checksum
    np.testing.assert_array_equal(got.latents, expected.latents)
    np.testing.assert_array_equal(got.context, expected.context)
    np.testing.assert_array_equal(got.hat, expected.hat)


def check(
    emulator: Emulator, chunk: ChunkLayout, values: npt.NDArray[np.float32], y: npt.NDArray[np.float32],
    order: Order = "forward", seed: int = 0,
) -> None:  # fmt: skip
    """Encodes and decodes a chunk on both sides. `values` is a prediction [2, C, H, W], or a row [2, C]."""
    planes = values if values.ndim == 4 else np.broadcast_to(values[:, :, None, None], (2, *chunk.shape)).copy()
    expected = on_host(chunk, planes, y)
    for direction in ("encode", "decode"):
        device = Device(emulator, chunk, order, seed)
        prediction = Prediction(device.memory.put(values), is_row=values.ndim == 2)
        if direction == "encode":
            assert_equal(device.encode(prediction, y), expected)
        else:
            assert_equal(device.decode(prediction, expected.symbols), expected)
        device.memory.free_all()


def draw_values(seed: int, shape: tuple[int, int, int], row: bool = False) -> tuple[Array, Array]:
    """A prediction and a latent, both with values that need clamping."""
    generator = np.random.default_rng(seed)
    kind = shape[:1] if row else shape
    values = np.stack([generator.normal(size=kind) * 200, generator.uniform(-3, 67, kind)]).astype(np.float32)
    values = np.floor(values)
    y = (generator.normal(size=shape) * 20).astype(np.float32)
    values[0].flat[::97] *= np.float32(1e6)
    values[1].flat[::101] = np.nan
    y.flat[::89] *= np.float32(1e9)
    y.flat[::83] = np.nan
    return values, y


def quadtree(shape: tuple[int, int, int]) -> tuple[StridedBox, ...]:
    """The boxes of a chunk as dcic-sgp has them: a quarter of the channels at each phase."""
    channels, rows, columns = shape
    cuts = [channels * k // 4 for k in range(5)]
    phases = [(0, 0), (1, 1), (0, 1), (1, 0)]
    return tuple(StridedBox(cuts[k], cuts[k + 1], r, rows, 2, q, columns, 2) for k, (r, q) in enumerate(phases))


def boxes_of(shape: tuple[int, int, int]) -> st.SearchStrategy[tuple[StridedBox, ...]]:
    """Boxes over disjoint channels, some of them empty."""
    channels, rows, columns = shape

    def box(begin: int, end: int) -> st.SearchStrategy[StridedBox]:
        side = lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.integers(1, n + 1))  # noqa: E731
        return st.tuples(side(rows), side(columns)).map(
            lambda x: StridedBox(
                begin, end, min(x[0][:2]), max(x[0][:2]), x[0][2], min(x[1][:2]), max(x[1][:2]), x[1][2]
            )
        )

    cuts = st.lists(st.integers(0, channels), min_size=2, max_size=6).map(sorted)
    return cuts.flatmap(lambda c: st.tuples(*(box(a, b) for a, b in pairwise(c))))


@settings(max_examples=60)
@given(st.data(), st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 40)), st.integers(0, 2**32 - 1))
def test_any_chunk_in_any_order_is_that_of_the_host(
    emulator: Emulator, data: st.DataObject, shape: tuple[int, int, int], seed: int
) -> None:
    chunk = ChunkLayout(
        shape, data.draw(boxes_of(shape)), data.draw(st.integers(1, 256)), data.draw(st.integers(0, 256)),
        data.draw(st.integers(0, 20)), data.draw(st.integers(0, 2**24)),
    )  # fmt: skip
    values, y = draw_values(seed, shape, row=data.draw(st.booleans()))
    check(emulator, chunk, values, y, data.draw(st.sampled_from(["forward", "reverse", "random"])), seed)


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("first_coded", [0, 2, 60, 64])
def test_many_tiles_at_once_are_put_in_order(emulator: Emulator, order: Order, first_coded: int) -> None:
    shape = (64, 36, 60)
    chunk = ChunkLayout(shape, quadtree(shape), 64, first_coded, 2, 1023)
    assert chunk.size > 33 * 1024, "more than one warp looks back on"
    check(emulator, chunk, *draw_values(first_coded, shape), order, seed=first_coded)


def test_elements_of_other_chunks_stay_as_they_are(emulator: Emulator) -> None:
    shape = (8, 8, 12)
    chunk = ChunkLayout(shape, quadtree(shape), 64, 2, 2, 1023)
    values, y = draw_values(5, shape)
    device = Device(emulator, chunk, "forward", 0)
    before = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    view(device.decoded.latents, shape, np.int32)[...] = before
    after = device.encode(Prediction(device.memory.put(values)), y).latents
    expected, touched = on_host(chunk, values, y).latents, np.zeros(shape, bool)
    for box in chunk.boxes:
        touched[box.slices] = True
    np.testing.assert_array_equal(after, np.where(touched, expected, before))
    device.memory.free_all()


def test_nothing_is_written_where_nobody_wants_it(emulator: Emulator) -> None:
    shape = (4, 8, 8)
    chunk = ChunkLayout(shape, quadtree(shape), 64, 2, 2, 1023)
    values, y = draw_values(6, shape)
    device = Device(emulator, chunk, "forward", 0)
    wanted, device.decoded = device.decoded, DecodeTargets()
    expected = on_host(chunk, values, y)
    launch = encode_chunk(
        chunk, Prediction(device.memory.put(values)), device.memory.put(y), DecodeTargets(), symbols=device.symbols,
        indexes=device.indexes, result=device.result, scan=device.scan,
    )  # fmt: skip
    emulator.launch(launch)
    assert view(device.result, 2, np.uint32).tolist() == [len(expected.symbols), expected.checksum]
    assert not view(wanted.latents, shape, np.int32).any()
    device.memory.free_all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("first_coded", [0, 64])
def test_a_latent_that_is_not_finite_is_told(emulator: Emulator, value: float, first_coded: int) -> None:
    """Whether its element is coded or not, but only by the chunk that has it."""
    shape = (4, 8, 8)
    values = np.zeros((2, *shape), np.float32)
    for channel, told in ((0, True), (3, False)):
        y = np.zeros(shape, np.float32)
        y[channel, 1, 1] = value
        device = Device(
            emulator, ChunkLayout(shape, (StridedBox(0, 3, 0, 8, 1, 0, 8, 1),), 64, first_coded, 2, 1023), "random", 1
        )
        device.encode(Prediction(device.memory.put(values)), y)
        assert view(device.not_finite, 1, np.uint32)[0] == (told and not np.isfinite(value))
        device.memory.free_all()


def test_the_chunks_of_a_photograph_are_those_of_the_host(
    emulator: Emulator, codec: Codec, photographs: dict[str, npt.NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that encoding a photograph quantises, with the predictions that its graphs gave."""
    seen = []
    original = latents_module._State._planes

    def note(self: latents_module._State, chunk: object, tile: object) -> npt.NDArray[np.float32]:
        planes = original(self, chunk, tile)
        latent = self._latent
        boxes = tuple(self.boxes(chunk))
        geometry = ChunkLayout(
            self.integers.shape, boxes, self._tables.scales, latent.first_coded, latent.context_shift,
            latent.context_limit,
        )  # fmt: skip
        seen.append((geometry, planes.copy(), self._evaluation.keep(f"{latent.name}.y")[0].copy()))
        return planes

    monkeypatch.setattr(latents_module._State, "_planes", note)
    coded = codec.host.quantise(photographs["cat"], 40)
    symbols = sum(len(symbols) for latent in coded.latents for symbols, _ in latent.chunks)
    assert symbols > 4000
    assert len(seen) == sum(len(latent.chunks) for latent in coded.latents)
    for number, (chunk, planes, y) in enumerate(seen):
        check(emulator, chunk, planes, y, "random", number)


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_dividing_by_a_product_is_exact_for_every_number_below_2_to_the_31(divisor: int, number: int) -> None:
    found = _divisor(divisor)
    magic, shift = int(found["magic"]), int(found["shift"])
    for n in (number, number // divisor * divisor, max(0, number // divisor * divisor - 1)):
        assert n * magic >> shift == n // divisor


def test_memory_that_was_freed_is_an_error_of_the_launch(emulator: Emulator) -> None:
    shape = (4, 8, 8)
    chunk = ChunkLayout(shape, quadtree(shape), 64, 2, 2, 1023)
    values, y = draw_values(6, shape)
    device = Device(emulator, chunk, "random", 1)
    device.memory.free(device.decoded.context)
    with pytest.raises(LaunchError, match="encode_chunk: access to 0x"):
        device.encode(Prediction(device.memory.put(values)), y)
    device.memory.free_all()


@pytest.mark.parametrize(
    "changes",
    [{"boxes": (StridedBox(0, 5, 0, 8, 1, 0, 8, 1),)}, {"boxes": (StridedBox(0, 4, 0, 8, 0, 0, 8, 1),)},
     {"scales": 0}, {"scales": 257},
     {"first_coded": -1}, {"first_coded": 257}, {"context_shift": 21}, {"context_limit": 2**24 + 1},
     {"context_limit": -1}, {"shape": (2**15, 2**10, 2**5)}, {"boxes": (StridedBox(0, 4, 0, 9, 1, 0, 8, 1),)},
     {"boxes": (StridedBox(0, 4, 0, 8, 1, 0, 9, 1),)}, {"boxes": (StridedBox(0, 4, 5, 4, 1, 0, 8, 1),)},
     {"boxes": (StridedBox(0, 4, 0, 8, 1, 0, 8, 0),)}, {"boxes": (StridedBox(0, 1, 0, 1, 1, 0, 1, 1),) * 65},
     {"boxes": (StridedBox(0, 4, 0, 8, 1, 0, 8, 1),) * 2}],
)  # fmt: skip
def test_what_no_launch_can_do_is_refused(changes: dict[str, object]) -> None:
    valid = {"shape": (4, 8, 8), "boxes": (StridedBox(0, 4, 0, 8, 1, 0, 8, 1),), "scales": 64, "first_coded": 2,
             "context_shift": 2, "context_limit": 1023}  # fmt: skip
    ChunkLayout(**{**valid, "boxes": (StridedBox(0, 1, 0, 1, 1, 0, 1, 1),) * 64})
    with pytest.raises(ValueError, match=r"box|scales|context|sizes"):
        ChunkLayout(**{**valid, **changes})
