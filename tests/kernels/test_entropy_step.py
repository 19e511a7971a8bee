from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.kernels import coded_indexes, context_inputs, quantise_chunk, scatter_symbols, store_distribution

SHAPE = (6, 9, 300)
SCALES = 64
WHOLE = np.array([[0, 6, 0, 9, 1, 0, 300, 1]], np.int32)
QUARTER = np.array([[0, 2, 0, 9, 2, 0, 300, 2], [2, 6, 1, 9, 2, 0, 300, 2], [5, 6, 0, 9, 2, 1, 300, 3]], np.int32)


def draw_latent(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A latent, and a prediction with values that need clamping."""
    generator = np.random.default_rng(seed)
    y = (generator.normal(size=SHAPE) * 20).astype(np.float32)
    params = np.stack([generator.normal(size=SHAPE) * 200, generator.uniform(-3, 67, SHAPE)])
    params = np.floor(params).astype(np.float32)
    params[0].flat[::97] *= 1e6
    y.flat[::89] *= 1e9
    return y, params


def elements(boxes: np.ndarray) -> np.ndarray:
    """Offsets of a chunk's elements, in order."""
    grid = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    parts = [grid[c0:c1, r0:r1:rs, q0:q1:qs].ravel() for c0, c1, r0, r1, rs, q0, q1, qs in boxes]
    return np.concatenate([np.zeros(0, int), *parts])


def fmix32(value: np.ndarray) -> np.ndarray:
    value = value.astype(np.uint32)
    value = (value ^ value >> 16) * np.uint32(0x85EBCA6B)
    value = (value ^ value >> 13) * np.uint32(0xC2B2AE35)
    return value ^ value >> 16


def checksum(decoded: np.ndarray) -> int:
    ordinals = np.arange(decoded.size, dtype=np.uint32) * np.uint32(0x9E3779B1)
    return int(fmix32(ordinals ^ decoded.astype(np.int32).view(np.uint32)).sum(dtype=np.uint64) % 2**32)


def gather(params: np.ndarray, boxes: np.ndarray, scales: int = SCALES) -> tuple[np.ndarray, np.ndarray]:
    """A chunk's distribution from a prediction over the whole latent."""
    size = elements(boxes).size
    mean, scale = np.empty(size, np.int16), np.empty(size, np.uint8)
    store_distribution(params, (0, 0), SHAPE, boxes, scales, mean, scale)
    return mean, scale


@pytest.mark.parametrize("boxes", [WHOLE, QUARTER], ids=["whole", "quarter"])
@pytest.mark.parametrize("first_coded", [0, 5, 63, 64])
def test_both_sides_agree_with_numpy(boxes: np.ndarray, first_coded: int) -> None:
    y, params = draw_latent(1)
    at = elements(boxes)
    mu16 = np.clip(params[0].ravel()[at], -32768, 32767).astype(np.int32)
    index = np.clip(params[1].ravel()[at], 0, SCALES - 1).astype(np.uint8)
    coded = index >= first_coded
    q = np.clip(np.floor(y.ravel()[at] - mu16.astype(np.float32) / 16 + np.float32(0.5)), -32767, 32767)
    q = np.where(coded, q, 0).astype(np.int32)
    expected = np.full(SHAPE, 7, np.int32)
    expected.flat[at] = 16 * q + mu16

    mean, scale = gather(params, boxes)
    np.testing.assert_array_equal(mean, mu16)
    np.testing.assert_array_equal(scale, index)
    sides = [np.full(SHAPE, 7, np.int32) for _ in range(2)]
    symbols, indexes, encoder_sum = quantise_chunk(y, mean, scale, boxes, first_coded, sides[0])
    np.testing.assert_array_equal(symbols, q[coded])
    np.testing.assert_array_equal(indexes, index[coded])
    np.testing.assert_array_equal(coded_indexes(scale, first_coded), index[coded])
    decoder_sum = scatter_symbols(symbols, mean, scale, boxes, first_coded, sides[1])
    assert encoder_sum == decoder_sum == checksum(16 * q + mu16)
    for latents in sides:
        np.testing.assert_array_equal(latents, expected)


@given(st.integers(1, 9), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_distribution_stored_tile_by_tile_is_that_of_the_whole(rows: int, columns: int, seed: int) -> None:
    _, params = draw_latent(3)
    generator = np.random.default_rng(seed)
    low, high = (np.sort(generator.integers(0, [n + 1 for n in SHAPE], (2, 3)), axis=0)).tolist()
    steps = generator.integers(1, 5, 2).tolist()
    one = [low[0], high[0], low[1], high[1], steps[0], low[2], high[2], steps[1]]
    boxes = np.array([one, [0, 1, 0, 9, 1, 0, 300, 1]] if one[0] else [one], np.int32)
    expected = gather(params, boxes)
    mean, scale = np.empty_like(expected[0]), np.empty_like(expected[1])
    for top in range(0, SHAPE[1], rows):
        for left in range(0, SHAPE[2], columns):
            tile = np.ascontiguousarray(params[:, :, top : top + rows, left : left + columns])
            store_distribution(tile, (top, left), SHAPE, boxes, SCALES, mean, scale)
    np.testing.assert_array_equal(mean, expected[0])
    np.testing.assert_array_equal(scale, expected[1])


@pytest.mark.parametrize(("shift", "limit"), [(2, 127), (0, 1 << 24), (4, 1023), (2, 50), (20, 3)])
@pytest.mark.parametrize(
    ("rows", "columns"), [((0, 9), (0, 300)), ((2, 5), (7, 8)), ((8, 9), (299, 300)), ((3, 3), (0, 9))]
)
def test_contexts_read_rounded_and_clipped_latents(
    shift: int, limit: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    latents = np.random.default_rng(3).integers(-(2**20), 2**20, SHAPE, np.int32)
    latents.flat[::3] >>= 12
    latents.flat[:2], latents.flat[-2:] = 2**31 - 1, -(2**31)
    part = latents[:, slice(*rows), slice(*columns)].astype(np.int64)
    expected = np.clip(np.floor((part + 2**shift // 2) / 2**shift), -limit, limit)
    np.testing.assert_array_equal(context_inputs(latents, rows, columns, shift, limit), expected)


@given(st.floats(width=32), st.floats(width=32), st.floats(width=32))
def test_no_float_breaks_anything(y: float, mean: float, scale: float) -> None:
    one = np.array([[0, 1, 0, 1, 1, 0, 1, 1]], np.int32)
    params = np.array([mean, scale], np.float32).reshape(2, 1, 1, 1)
    means, scales = np.zeros(1, np.int16), np.zeros(1, np.uint8)
    store_distribution(params, (0, 0), (1, 1, 1), one, 64, means, scales)
    latents = np.zeros((1, 1, 1), np.int32)
    symbols, indexes, total = quantise_chunk(np.full((1, 1, 1), y, np.float32), means, scales, one, 0, latents)
    assert abs(int(symbols[0])) <= 32767
    assert indexes[0] <= 63
    assert means[0] == (int(np.clip(mean, -32768, 32767)) if mean == mean else -32768)
    assert latents[0, 0, 0] == 16 * int(symbols[0]) + int(means[0])
    assert abs(context_inputs(latents, (0, 1), (0, 1), 2, 127)[0, 0, 0]) <= 127
    if y != y:
        assert symbols[0] == 0
    assert scatter_symbols(symbols, means, scales, one, 0, latents) == total


def test_one_changed_symbol_changes_the_checksum() -> None:
    y, params = draw_latent(2)
    latents, distribution = np.zeros(SHAPE, np.int32), gather(params, QUARTER)
    symbols, _, expected = quantise_chunk(y, *distribution, QUARTER, 5, latents)
    symbols[symbols.size // 2] += 1
    assert scatter_symbols(symbols, *distribution, QUARTER, 5, latents) != expected


def test_a_chunk_without_elements_is_empty() -> None:
    y, params = draw_latent(3)
    latents = np.zeros(SHAPE, np.int32)
    for boxes in (np.zeros((0, 8), np.int32), np.array([[0, 0, 0, 9, 1, 0, 300, 1]], np.int32)):
        distribution = gather(params, boxes)
        symbols, indexes, total = quantise_chunk(y, *distribution, boxes, 0, latents)
        assert (symbols.size, indexes.size, total) == (0, 0, 0)
        assert scatter_symbols(symbols, *distribution, boxes, 0, latents) == 0


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_number_of_symbols_is_rejected(change: int) -> None:
    _, params = draw_latent(4)
    mean, scale = gather(params, WHOLE)
    coded = coded_indexes(scale, 5).size
    symbols = np.zeros(coded + change, np.int16)
    with pytest.raises(ValueError, match=f"codes {coded} symbols, not {coded + change}"):
        scatter_symbols(symbols, mean, scale, WHOLE, 5, np.zeros(SHAPE, np.int32))


@pytest.mark.parametrize(
    "box",
    [
        [-1, 6, 0, 9, 1, 0, 300, 1],
        [0, 7, 0, 9, 1, 0, 300, 1],
        [4, 3, 0, 9, 1, 0, 300, 1],
        [0, 6, 0, 10, 1, 0, 300, 1],
        [0, 6, 0, 9, 0, 0, 300, 1],
        [0, 6, 0, 9, -1, 0, 300, 1],
        [0, 6, 0, 9, 1, 0, 301, 1],
        [0, 6, 0, 9, 1, 0, 2**31 - 1, 1],
        [0, 6, 0, 9, 1, 0, 300, 0],
    ],
)
def test_a_box_outside_the_latent_is_rejected(box: list[int]) -> None:
    y, params = draw_latent(5)
    boxes, latents = np.array([box], np.int32), np.zeros(SHAPE, np.int32)
    mean, scale = np.zeros(y.size, np.int16), np.zeros(y.size, np.uint8)
    with pytest.raises(ValueError, match="box 0 does not lie within"):
        store_distribution(params, (0, 0), SHAPE, boxes, SCALES, mean, scale)
    with pytest.raises(ValueError, match="box 0 does not lie within"):
        quantise_chunk(y, mean, scale, boxes, 0, latents)
    with pytest.raises(ValueError, match="box 0 does not lie within"):
        scatter_symbols(mean, mean, scale, boxes, 0, latents)


@pytest.mark.parametrize("origin", [(1, 0), (0, 1), (10, 0), (0, 301), (2**40, 0)])
def test_a_tile_outside_the_latent_is_rejected(origin: tuple[int, int]) -> None:
    _, params = draw_latent(5)
    with pytest.raises(ValueError, match="part does not lie within"):
        store_distribution(params, origin, SHAPE, WHOLE, SCALES, *gather(params, WHOLE))
    rows, columns = ((x, x + n) for x, n in zip(origin, SHAPE[1:], strict=True))
    if origin[0] < 2**20:
        with pytest.raises(ValueError, match="part does not lie within"):
            context_inputs(np.zeros(SHAPE, np.int32), rows, columns, 2, 127)


def test_the_largest_steps_are_harmless() -> None:
    _, params = draw_latent(5)
    box = np.array([[0, 6, 8, 9, 2**31 - 1, 299, 300, 2**31 - 1]], np.int32)
    np.testing.assert_array_equal(gather(params, box)[0], np.clip(params[0, :, 8, 299], -32768, 32767))


def test_more_elements_than_the_latent_has_are_rejected() -> None:
    _, params = draw_latent(6)
    with pytest.raises(ValueError, match="more elements than the latent"):
        gather(params, np.concatenate([WHOLE, WHOLE]))


@pytest.mark.parametrize("sides", [(16, 2**30, 2**30), (2**31 - 1, 2**31 - 1, 2**31 - 1), (2**20, 2**20, 2**20)])
def test_a_latent_of_more_elements_than_memory_has_addresses_is_rejected(sides: tuple[int, int, int]) -> None:
    box = np.array([[0, sides[0], 0, sides[1], 1, 0, sides[2], 1]], np.int32)
    params = np.zeros((2, sides[0] if sides[0] < 100 else 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="too many elements"):
        store_distribution(params, (0, 0), sides, box, SCALES, np.empty(0, np.int16), np.empty(0, np.uint8))


@pytest.mark.parametrize("scales", [0, 257, -1])
def test_numbers_of_scales_out_of_range_are_rejected(scales: int) -> None:
    with pytest.raises(ValueError, match="scales must be 1 to 256"):
        gather(draw_latent(7)[1], WHOLE, scales)


@pytest.mark.parametrize(
    ("shift", "limit", "reason"),
    [(-1, 127, "context_shift"), (21, 127, "context_shift"), (2, -1, "context_limit"), (2, 2**24 + 1, "context_limit")],
)
def test_context_options_out_of_range_are_rejected(shift: int, limit: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        context_inputs(np.zeros(SHAPE, np.int32), (0, 9), (0, 300), shift, limit)


def test_arrays_that_are_not_aligned_are_rejected() -> None:
    """What C++ may not read, though numpy can make it and most processors take it."""
    y, params = draw_latent(8)
    (mean, scale), latents = gather(params, WHOLE), np.zeros(SHAPE, np.int32)
    symbols, _, _ = quantise_chunk(y, mean, scale, WHOLE, 0, latents)
    calls = [
        (store_distribution, [params, (0, 0), SHAPE, WHOLE, SCALES, mean, scale]),
        (quantise_chunk, [y, mean, scale, WHOLE, 0, latents]),
        (scatter_symbols, [symbols, mean, scale, WHOLE, 0, latents]),
        (context_inputs, [latents, (0, 9), (0, 300), 2, 127]),
    ]
    for call, arguments in calls:
        for k, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray) and argument.itemsize > 1:
                buffer = bytearray(b" " + argument.tobytes())
                moved = np.frombuffer(buffer, argument.dtype, offset=1).reshape(argument.shape)
                with pytest.raises(TypeError, match="not aligned"):
                    call(*arguments[:k], moved, *arguments[k + 1 :])


def test_arrays_that_do_not_fit_are_rejected() -> None:
    y, params = draw_latent(8)
    latents, (mean, scale) = np.zeros(SHAPE, np.int32), gather(params, WHOLE)
    for values, target in ((y[:5], latents), (y, np.zeros((6, 9, 299), np.int32))):
        with pytest.raises(ValueError, match=r"differ in shape|does not lie within"):
            quantise_chunk(values, mean, scale, WHOLE, 0, target)
    for means, indexes in ((mean[1:], scale), (mean, scale[:-1])):
        for call in (
            lambda m, s: quantise_chunk(y, m, s, WHOLE, 0, latents),
            lambda m, s: scatter_symbols(mean, m, s, WHOLE, 0, latents),
            lambda m, s: store_distribution(params, (0, 0), SHAPE, WHOLE, SCALES, m, s),
        ):
            with pytest.raises(ValueError, match="one mean and one scale for each element"):
                call(means, indexes)
    with pytest.raises(ValueError, match="differ in channels"):
        store_distribution(params[:, :5].copy(), (0, 0), SHAPE, WHOLE, SCALES, mean, scale)


def test_arrays_of_another_kind_are_rejected() -> None:
    y, params = draw_latent(9)
    latents, (mean, scale) = np.zeros(SHAPE, np.int32), gather(params, WHOLE)
    frozen = latents.copy()
    frozen.flags.writeable = False
    wrong = [
        (y.astype(np.float64), mean, scale, WHOLE, latents),
        (np.asfortranarray(y), mean, scale, WHOLE, latents),
        (y, mean.astype(np.int32), scale, WHOLE, latents),
        (y, mean, scale.astype(np.int16), WHOLE, latents),
        (y, mean, np.repeat(scale, 2)[::2], WHOLE, latents),
        (y, mean, scale, WHOLE.astype(np.int64), latents),
        (y, mean, scale, WHOLE[:, :7], latents),
        (y, mean, scale, WHOLE, latents.astype(np.int64)),
        (y, mean, scale, WHOLE, frozen),
    ]
    for values, means, scales, boxes, target in wrong:
        with pytest.raises(TypeError):
            quantise_chunk(values, means, scales, boxes, 0, target)
    for prediction in (params[:1], params.astype(np.float64), np.asfortranarray(params)):
        with pytest.raises(TypeError):
            store_distribution(prediction, (0, 0), SHAPE, WHOLE, SCALES, mean, scale)
