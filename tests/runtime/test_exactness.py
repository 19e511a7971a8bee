"""Any backend decodes any backend's file to the encoder's own integer latents (docs: exactness)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from condic.runtime.codec import Codec, Decoded

QUALITY = {"astronaut": 63, "coffee": 24, "cat": 40}
Latents = dict[str, np.ndarray]


@dataclass(frozen=True)
class Coded:
    """A file and the integer latents that its encoder had, by name."""

    data: bytes
    latents: Latents


@pytest.fixture(scope="module")
def coded(open_setting: Callable[[str, str], Codec], photographs: dict[str, np.ndarray]) -> Callable[..., Coded]:
    """`coded(preset, setting, photograph)`: the photograph's file, with the encoder's latents."""

    @cache
    def encode(preset: str, setting: str, photograph: str) -> Coded:
        codec = open_setting(preset, setting)
        quantised = codec.host.quantise(photographs[photograph], QUALITY[photograph])
        return Coded(codec.pack(quantised), {latent.name: latent.integers for latent in quantised.latents})

    return encode


@pytest.fixture(scope="module")
def decoded(coded: Callable[..., Coded], open_setting: Callable[[str, str], Codec]) -> Callable[..., Decoded]:
    """`decoded(preset, encoder, decoder, photograph)`."""

    @cache
    def decode(preset: str, encoder: str, decoder: str, photograph: str) -> Decoded:
        return open_setting(preset, decoder).decode(coded(preset, encoder, photograph).data, latents=True)

    return decode


@pytest.mark.parametrize("setting", ["torch", "ort-1-thread", "ort-2-threads", "ort-as-written", "openvino"])
@pytest.mark.parametrize("photograph", list(QUALITY))
@pytest.mark.parametrize("preset", ["t", "s"])
def test_every_backend_recovers_the_latents_of_an_encoder(
    preset: str, photograph: str, setting: str, coded: Callable[..., Coded], decoded: Callable[..., Decoded],
    open_setting: Callable[[str, str], Codec], available_settings: dict[str, object],
) -> None:  # fmt: skip
    open_setting(preset, setting)
    latents = coded(preset, setting, photograph).latents
    assert set(latents) == {"prior", "hyper", "main"}
    assert all(np.count_nonzero(x) > x.size / 100 for x in latents.values())
    for decoder in available_settings:
        found = decoded(preset, setting, decoder, photograph).latents
        differing = {name: np.count_nonzero(found[name] != latents[name]) for name in latents}
        assert differing == {"prior": 0, "hyper": 0, "main": 0}, f"written by {setting}, read by {decoder}"


@pytest.mark.parametrize("photograph", list(QUALITY))
@pytest.mark.parametrize("preset", ["t", "s"])
def test_float32_backends_give_the_same_picture_of_a_file(
    preset: str, photograph: str, decoded: Callable[..., Decoded], available_settings: dict[str, object]
) -> None:
    alike = [name for name in available_settings if name != "openvino"]
    pictures = [decoded(preset, alike[0], name, photograph).image.astype(int) for name in alike]
    for name, picture in zip(alike, pictures, strict=True):
        assert np.mean(np.abs(picture - pictures[0]) <= 1) >= 0.999, name


@pytest.mark.parametrize("photograph", list(QUALITY))
@pytest.mark.parametrize("preset", ["t", "s"])
def test_a_bfloat16_backend_gives_nearly_the_same_picture(
    preset: str, photograph: str, decoded: Callable[..., Decoded], open_setting: Callable[[str, str], Codec]
) -> None:
    open_setting(preset, "openvino")
    reference = decoded(preset, "ort-1-thread", "ort-1-thread", photograph).image.astype(float)
    picture = decoded(preset, "ort-1-thread", "openvino", photograph).image.astype(float)
    assert psnr(picture, reference) >= 40


def test_pictures_and_latents_do_not_depend_on_the_run(codec: Codec, photographs: dict[str, np.ndarray]) -> None:
    first, second = (codec.encode(photographs["cat"], 40) for _ in range(2))
    assert first == second
    assert np.array_equal(codec.decode(first).image, codec.decode(first).image)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a - b) ** 2), 1e-12)))
