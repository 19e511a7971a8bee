from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.kernels import gather_indexes, quantise_chunk, scatter_symbols

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
    return np.concatenate([grid[c0:c1, r0:r1:rs, q0:q1:qs].ravel() for c0, c1, r0, r1, rs, q0, q1, qs in boxes])


def fmix32(value: np.ndarray) -> np.ndarray:
    value = value.astype(np.uint32)
    value = (value ^ value >> 16) * np.uint32(0x85EBCA6B)
    value = (value ^ value >> 13) * np.uint32(0xC2B2AE35)
    return value ^ value >> 16


def checksum(decoded: np.ndarray) -> int:
    ordinals = np.arange(decoded.size, dtype=np.uint32) * np.uint32(0x9E3779B1)
    return int(fmix32(ordinals ^ decoded.astype(np.int32).view(np.uint32)).sum(dtype=np.uint64) % 2**32)


@pytest.mark.parametrize("boxes", [WHOLE, QUARTER], ids=["whole", "quarter"])
@pytest.mark.parametrize(("shift", "limit", "first_coded"), [(2, 127, 5), (0, 1 << 24, 0), (4, 1023, 63), (2, 50, 64)])
def test_both_sides_agree_with_numpy(boxes: np.ndarray, shift: int, limit: int, first_coded: int) -> None:
    y, params = draw_latent(1)
    at = elements(boxes)
    mu16 = np.clip(params[0].ravel()[at], -32768, 32767).astype(np.int32)
    index = np.clip(params[1].ravel()[at], 0, SCALES - 1).astype(np.uint8)
    coded = index >= first_coded
    q = np.clip(np.floor(y.ravel()[at] - mu16.astype(np.float32) / 16 + np.float32(0.5)), -32767, 32767)
    q = np.where(coded, q, 0).astype(np.int32)
    expected_latents, expected_context = np.full(SHAPE, 7, np.int32), np.full(SHAPE, 7, np.float32)
    expected_latents.flat[at] = 16 * q + mu16
    rounded = np.floor((expected_latents.ravel()[at] + (2**shift // 2)) / 2**shift)
    expected_context.flat[at] = np.clip(rounded, -limit, limit)

    sides = [(np.full(SHAPE, 7, np.int32), np.full(SHAPE, 7, np.float32)) for _ in range(2)]
    symbols, indexes, encoder_sum = quantise_chunk(y, params, boxes, first_coded, *sides[0], shift, limit, SCALES)
    np.testing.assert_array_equal(symbols, q[coded])
    np.testing.assert_array_equal(indexes, index[coded])
    np.testing.assert_array_equal(gather_indexes(params, boxes, first_coded, SCALES), index[coded])
    decoder_sum = scatter_symbols(symbols, params, boxes, first_coded, *sides[1], shift, limit, SCALES)
    assert encoder_sum == decoder_sum == checksum(16 * q + mu16)
    for latents, context in sides:
        np.testing.assert_array_equal(latents, expected_latents)
        np.testing.assert_array_equal(context, expected_context)


@given(st.floats(width=32), st.floats(width=32), st.floats(width=32))
def test_no_float_breaks_anything(y: float, mean: float, scale: float) -> None:
    one = np.array([[0, 1, 0, 1, 1, 0, 1, 1]], np.int32)
    params = np.array([mean, scale], np.float32).reshape(2, 1, 1, 1)
    latents, context = np.zeros((1, 1, 1), np.int32), np.zeros((1, 1, 1), np.float32)
    values = np.full((1, 1, 1), y, np.float32)
    symbols, indexes, total = quantise_chunk(values, params, one, 0, latents, context, 2, 127, 64)
    assert abs(int(symbols[0])) <= 32767
    assert indexes[0] <= 63
    assert latents[0, 0, 0] == 16 * int(symbols[0]) + (int(np.clip(mean, -32768, 32767)) if mean == mean else -32768)
    assert abs(context[0, 0, 0]) <= 127
    if y != y:
        assert symbols[0] == 0
    assert scatter_symbols(symbols, params, one, 0, latents, context, 2, 127, 64) == total


def test_one_changed_symbol_changes_the_checksum() -> None:
    y, params = draw_latent(2)
    arrays = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32)
    symbols, _, expected = quantise_chunk(y, params, QUARTER, 5, *arrays, 2, 127, SCALES)
    symbols[symbols.size // 2] += 1
    assert scatter_symbols(symbols, params, QUARTER, 5, *arrays, 2, 127, SCALES) != expected


def test_a_chunk_without_elements_is_empty() -> None:
    y, params = draw_latent(3)
    arrays = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32)
    for boxes in (np.zeros((0, 8), np.int32), np.array([[0, 0, 0, 9, 1, 0, 300, 1]], np.int32)):
        symbols, indexes, total = quantise_chunk(y, params, boxes, 0, *arrays, 0, 0, SCALES)
        assert (symbols.size, indexes.size, total) == (0, 0, 0)
        assert scatter_symbols(symbols, params, boxes, 0, *arrays, 0, 0, SCALES) == 0


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_number_of_symbols_is_rejected(change: int) -> None:
    _, params = draw_latent(4)
    arrays = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32)
    coded = gather_indexes(params, WHOLE, 5, SCALES).size
    with pytest.raises(ValueError, match=f"codes {coded} symbols, not {coded + change}"):
        scatter_symbols(np.zeros(coded + change, np.int16), params, WHOLE, 5, *arrays, 2, 127, SCALES)


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
    _, params = draw_latent(5)
    with pytest.raises(ValueError, match="box 0 does not lie within"):
        gather_indexes(params, np.array([box], np.int32), 0, SCALES)


def test_the_largest_steps_are_harmless() -> None:
    _, params = draw_latent(5)
    box = np.array([[0, 6, 8, 9, 2**31 - 1, 299, 300, 2**31 - 1]], np.int32)
    assert gather_indexes(params, box, 0, SCALES).size == 6


def test_more_elements_than_the_latent_has_are_rejected() -> None:
    _, params = draw_latent(6)
    with pytest.raises(ValueError, match="more elements than the latent"):
        gather_indexes(params, np.concatenate([WHOLE, WHOLE]), 0, SCALES)


@pytest.mark.parametrize(
    ("shift", "limit", "scales", "reason"),
    [
        (-1, 127, 64, "context_shift"),
        (21, 127, 64, "context_shift"),
        (2, -1, 64, "context_limit"),
        (2, 2**24 + 1, 64, "context_limit"),
        (2, 127, 0, "scales"),
        (2, 127, 257, "scales"),
    ],
)
def test_options_out_of_range_are_rejected(shift: int, limit: int, scales: int, reason: str) -> None:
    y, params = draw_latent(7)
    arrays = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32)
    with pytest.raises(ValueError, match=reason):
        quantise_chunk(y, params, WHOLE, 0, *arrays, shift, limit, scales)


def test_arrays_that_differ_in_shape_are_rejected() -> None:
    y, params = draw_latent(8)
    latents, context = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32)
    small_latents, small_context = np.zeros((6, 9, 299), np.int32), np.zeros((6, 8, 300), np.float32)
    for arrays in ((y[:5], latents, context), (y, small_latents, context), (y, latents, small_context)):
        with pytest.raises(ValueError, match="differ in shape"):
            quantise_chunk(arrays[0], params, WHOLE, 0, *arrays[1:], 2, 127, SCALES)


def test_arrays_of_another_kind_are_rejected() -> None:
    y, params = draw_latent(9)
    latents, context = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32)
    frozen = latents.copy()
    frozen.flags.writeable = False
    wrong = [
        (y.astype(np.float64), params, WHOLE, latents),
        (np.asfortranarray(y), params, WHOLE, latents),
        (y, params[:1], WHOLE, latents),
        (y, params, WHOLE.astype(np.int64), latents),
        (y, params, WHOLE[:, :7], latents),
        (y, params, WHOLE, latents.astype(np.int64)),
        (y, params, WHOLE, frozen),
    ]
    for values, prediction, boxes, target in wrong:
        with pytest.raises(TypeError):
            quantise_chunk(values, prediction, boxes, 0, target, context, 2, 127, SCALES)
