"""Coding of latents by their schedules, apart from pixels: saturation, escapes, and what it costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from condic import kernels
from condic.errors import IntegrityError, StreamError
from condic.runtime import codec as codec_module
from condic.runtime.backends import BackendOptions
from condic.runtime.bitstream import read_stream
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.latents import Coded, EntropyTables, LatentState, decode_latent, encode_latent, encode_section
from condic.runtime.manifest import Latent

SIZE = (256, 128)


@pytest.fixture(scope="module")
def tables(bundle: Bundle) -> EntropyTables:
    coder = kernels.Tables(bundle.tables["cdf"], bundle.tables["radius"])
    first = {name: x.astype(np.float32) for name, x in bundle.tables.items() if name.startswith("first.")}
    return EntropyTables(coder, bundle.manifest.scales, first)


def quality_rows(bundle: Bundle, quality: int) -> dict[str, np.ndarray]:
    names = [name for name in bundle.tables if name.startswith("quality.")]
    return {name: bundle.tables[name][quality].astype(np.float32).reshape(1, -1, 1, 1) for name in names}


def random_y(latent: Latent, spread: float) -> np.ndarray:
    shape = (1, latent.channels, SIZE[0] // latent.stride, SIZE[1] // latent.stride)
    return (np.random.default_rng(5).standard_normal(shape) * spread).astype(np.float32)


def round_trip(
    codec: Codec, tables: EntropyTables, y: np.ndarray, quality: int, first_coded: int = 2
) -> tuple[LatentState, LatentState, Coded]:
    """The prior latent's state on both sides, and its symbols."""
    latent = replace(codec.bundle.manifest.latent("prior"), first_coded=first_coded)
    tensors = quality_rows(codec.bundle, quality)
    state, coded, checksums = encode_latent(latent, y, tables, quality, dict(tensors), codec.graphs.run, SIZE)
    payload = encode_section(coded, checksums, tables)
    return state, decode_latent(latent, payload, tables, quality, tensors, codec.graphs.run, SIZE), coded


@pytest.mark.parametrize("spread", [0, 0.3, 20, 3e3, 1e9])
@pytest.mark.parametrize("quality", [0, 63])
def test_latents_of_any_spread_survive(codec: Codec, tables: EntropyTables, spread: float, quality: int) -> None:
    y = random_y(codec.bundle.manifest.latent("prior"), spread)
    encoded, decoded, _ = round_trip(codec, tables, y, quality)
    assert np.array_equal(encoded.integers, decoded.integers)
    assert np.array_equal(encoded.context, decoded.context)


def test_latents_that_are_no_numbers_survive(codec: Codec, tables: EntropyTables) -> None:
    y = random_y(codec.bundle.manifest.latent("prior"), 1)
    y[0, 0], y[0, 1], y[0, 2] = np.nan, np.inf, -np.inf
    encoded, decoded, _ = round_trip(codec, tables, y, 32)
    assert np.array_equal(encoded.integers, decoded.integers)


def test_a_decoded_latent_is_within_half_a_step_of_what_was_coded(codec: Codec, tables: EntropyTables) -> None:
    latent = codec.bundle.manifest.latent("prior")
    y = random_y(latent, 20)
    encoded, _, coded = round_trip(codec, tables, y, 63, first_coded=0)
    assert sum(len(symbols) for symbols, _ in coded.chunks) == y.size
    assert np.abs(encoded.hat - y).max() <= 0.5
    assert encoded.context.shape == y.shape
    expected = np.floor(encoded.integers / 2.0**latent.context_shift + 0.5)
    assert np.array_equal(encoded.context[0], expected.clip(-latent.context_limit, latent.context_limit))


def test_contexts_never_see_more_than_their_limit(codec: Codec, tables: EntropyTables) -> None:
    latent = codec.bundle.manifest.latent("prior")
    encoded, _, _ = round_trip(codec, tables, random_y(latent, 1e6), 63)
    assert np.abs(encoded.context).max() == latent.context_limit
    assert np.abs(encoded.integers).max() > 16 * 32000


def test_saturated_latents_escape_and_decode_everywhere(
    bundle: Bundle, codec: Codec, open_setting: Callable[[str, str], Codec], available_settings: dict[str, object],
    drawing: Callable[..., np.ndarray],
) -> None:  # fmt: skip
    """Gains a million times too large: nearly every symbol at level 63 lies far outside the tables."""
    gains = {name: bundle.tables[name] * np.float32(1e6) for name in ("quality.prior_gain", "quality.main_gain")}
    loud = Codec(replace(bundle, tables={**bundle.tables, **gains}), "ort", BackendOptions(threads=1))
    image = drawing(90, 150)
    data = loud.encode(image, 63)
    assert len(data) > 3 * len(codec.encode(image, 63))
    assert escapes(data, kind=0) > 100
    assert escapes(data, kind=2) > 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = codec.decode(data)
        assert max(np.abs(x).max() for x in expected.latents.values()) >= 16 * 32767
        for setting in available_settings:
            assert open_setting("t", setting).decode(data).latents_sha256() == expected.latents_sha256()


def escapes(data: bytes, kind: int) -> int:
    """Escaped symbols of a latent's section: after 4 checksums, flag 16 of the coder's first byte and a LEB128."""
    payload = bytes(read_stream(data).section(kind).payload)[16:]
    if not payload[0] & 16:
        return 0
    position, shift, count = 2 if payload[0] & 8 else 1, 0, 0
    while True:
        count |= (payload[position] & 127) << shift
        if payload[position] < 128:
            return count
        position, shift = position + 1, shift + 7


@pytest.mark.parametrize("quality", [0, 20, 63])
@pytest.mark.parametrize("size", [(1, 1), (40, 300), (256, 256)])
def test_a_file_is_hardly_larger_than_the_information_in_it(
    codec: Codec, drawing: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], quality: int
) -> None:
    bits = 0.0

    def weigh(coded: Coded, checksums: bytes, tables: EntropyTables) -> bytes:
        nonlocal bits
        bits += sum(kernels.information_content(tables.coder, *chunk) for chunk in coded.chunks)
        return encode_section(coded, checksums, tables)

    monkeypatch.setattr(codec_module, "encode_section", weigh)
    data = codec.encode(drawing(*size), quality)
    assert 0 < bits / 8 < len(data) <= 1.01 * bits / 8 + 200


def test_a_wrong_checksum_names_chunk_and_latent(codec: Codec, tables: EntropyTables) -> None:
    latent = codec.bundle.manifest.latent("prior")
    tensors = quality_rows(codec.bundle, 32)
    _, coded, checksums = encode_latent(
        latent, random_y(latent, 3), tables, 32, dict(tensors), codec.graphs.run, SIZE
    )
    for chunk in range(len(latent.chunks)):
        wrong = bytearray(checksums)
        wrong[4 * chunk] ^= 1
        with pytest.raises(IntegrityError, match=f"chunk {chunk} of latent prior does not have the encoder's checksum"):
            decode_latent(latent, encode_section(coded, bytes(wrong), tables), tables, 32, tensors, codec.graphs.run, SIZE)


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_section_too_short_for_its_checksums_is_refused(codec: Codec, tables: EntropyTables, length: int) -> None:
    latent = codec.bundle.manifest.latent("prior")
    with pytest.raises(StreamError, match="too short for its 4 checksums"):
        decode_latent(latent, bytes(length), tables, 0, quality_rows(codec.bundle, 0), codec.graphs.run, SIZE)
