"""Coding of latents by their schedules, apart from pixels: saturation, escapes, and what it costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from condic import kernels
from condic.errors import IntegrityError, StreamError
from condic.runtime.backends import BackendOptions
from condic.runtime.bitstream import read_stream
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.guard import GuardWriter
from condic.runtime.latents import Coded, EntropyTables, decode_latent, encode_latent
from condic.runtime.manifest import Latent
from condic.runtime.tiles import Evaluation

SIZE = (256, 128)


@dataclass(frozen=True)
class Side:
    """What a side knows of the prior latent when it is done: integers in 1/16, and what contexts read."""

    integers: np.ndarray
    context: np.ndarray
    coded: Coded | None = None


def context_of(evaluation: Evaluation) -> np.ndarray:
    """What contexts read of the whole prior."""
    return evaluation.sources["prior.context"](evaluation.whole)


@dataclass(frozen=True)
class Prior:
    """Coding of the prior latent of preset t alone, on random values."""

    codec: Codec
    latent: Latent
    tables: EntropyTables

    def evaluation(self, quality: int) -> Evaluation:
        evaluation = Evaluation(self.codec.bundle.manifest, self.codec.graphs.run, *SIZE)
        for name, table in self.codec.bundle.tables.items():
            if name.startswith("quality."):
                evaluation.give(name, table[quality].astype(np.float32).reshape(1, -1, 1, 1))
        return evaluation

    def y(self, spread: float) -> np.ndarray:
        shape = (1, self.latent.channels, SIZE[0] // self.latent.stride, SIZE[1] // self.latent.stride)
        return (np.random.default_rng(5).standard_normal(shape) * spread).astype(np.float32)

    def encode(self, y: np.ndarray, quality: int) -> Side:
        evaluation = self.evaluation(quality)
        evaluation.kept["prior.y"] = y
        coded = encode_latent(self.latent, evaluation, self.tables, quality, GuardWriter())
        return Side(coded.integers, context_of(evaluation), coded)

    def decode(self, section: bytes, quality: int) -> Side:
        evaluation = self.evaluation(quality)
        integers = decode_latent(self.latent, section, evaluation, self.tables, quality, GuardWriter())
        return Side(integers, context_of(evaluation))

    def round_trip(self, y: np.ndarray, quality: int) -> tuple[Side, Side]:
        encoded = self.encode(y, quality)
        assert encoded.coded is not None
        return encoded, self.decode(encoded.coded.section(self.tables), quality)


@pytest.fixture(scope="module")
def prior(codec: Codec, bundle: Bundle) -> Prior:
    coder = kernels.Tables(bundle.tables["cdf"], bundle.tables["radius"])
    first = {name: x.astype(np.float32) for name, x in bundle.tables.items() if name.startswith("first.")}
    return Prior(codec, bundle.manifest.latent("prior"), EntropyTables(coder, bundle.manifest.scales, first))


@pytest.mark.parametrize("spread", [0, 0.3, 20, 3e3, 1e9])
@pytest.mark.parametrize("quality", [0, 63])
def test_latents_of_any_spread_survive(prior: Prior, spread: float, quality: int) -> None:
    encoded, decoded = prior.round_trip(prior.y(spread), quality)
    assert np.array_equal(encoded.integers, decoded.integers)
    assert np.array_equal(encoded.context, decoded.context)


def test_latents_that_are_no_numbers_survive(prior: Prior) -> None:
    y = prior.y(1)
    y[0, 0], y[0, 1], y[0, 2] = np.nan, np.inf, -np.inf
    encoded, decoded = prior.round_trip(y, 32)
    assert np.array_equal(encoded.integers, decoded.integers)


def test_a_decoded_latent_is_within_half_a_step_of_what_was_coded(prior: Prior) -> None:
    every = replace(prior, latent=replace(prior.latent, first_coded=0))
    y = prior.y(20)
    encoded = every.encode(y, 63)
    assert encoded.coded is not None
    assert sum(len(symbols) for symbols, _ in encoded.coded.chunks) == y.size
    assert np.abs(encoded.integers / 16 - y[0]).max() <= 0.5
    expected = np.floor(encoded.integers / 2.0**prior.latent.context_shift + 0.5)
    limit = prior.latent.context_limit
    assert np.array_equal(encoded.context[0], expected.clip(-limit, limit))


def test_elements_of_the_smallest_scales_are_not_coded(prior: Prior) -> None:
    """They are their mean on both sides, whatever the encoder had."""
    none = replace(prior, latent=replace(prior.latent, first_coded=prior.tables.scales))
    encoded, decoded = none.round_trip(prior.y(20), 63)
    assert encoded.coded is not None
    assert sum(len(symbols) for symbols, _ in encoded.coded.chunks) == 0
    assert np.array_equal(encoded.integers, decoded.integers)
    assert np.array_equal(none.encode(prior.y(0), 63).integers, encoded.integers)


def test_contexts_never_see_more_than_their_limit(prior: Prior) -> None:
    encoded = prior.encode(prior.y(1e6), 63)
    assert np.abs(encoded.context).max() == prior.latent.context_limit
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
        expected = codec.decode(data, latents=True)
        assert max(np.abs(x).max() for x in expected.latents.values()) >= 16 * 32767
        for setting in available_settings:
            assert open_setting("t", setting).decode(data, latents=True).latents_sha256() == expected.latents_sha256()


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
    codec: Codec, prior: Prior, drawing: Callable[..., np.ndarray], size: tuple[int, int], quality: int
) -> None:
    quantised = codec.host.quantise(drawing(*size), quality)
    chunks = [chunk for latent in quantised.latents for chunk in latent.chunks]
    information = sum(kernels.information_content(prior.tables.coder, *chunk) for chunk in chunks) / 8
    assert 0 < information < len(codec.pack(quantised)) <= 1.01 * information + 200


def test_a_wrong_checksum_names_chunk_and_latent(prior: Prior) -> None:
    coded = prior.encode(prior.y(3), 32).coded
    assert coded is not None
    section = coded.section(prior.tables)
    for chunk in range(4):
        wrong = bytearray(section)
        wrong[4 * chunk] ^= 1
        with pytest.raises(IntegrityError, match=f"chunk {chunk} of latent prior does not have the encoder's checksum"):
            prior.decode(bytes(wrong), 32)


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_section_too_short_for_its_checksums_is_refused(prior: Prior, length: int) -> None:
    with pytest.raises(StreamError, match="too short for its 4 checksums"):
        prior.decode(bytes(length), 0)
