"""A codec whose entropy path is floating point: files decode on every backend, or it says that they do not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condic.errors import BundleError, InputError, IntegrityError, StreamError
from condic.runtime.backends import BackendOptions
from condic.runtime.bitstream import GUARD, read_stream, write_stream
from condic.runtime.bundle import Bundle, check_bundle, read_bundle
from condic.runtime.codec import Codec
from condic.runtime.guard import pack, unpack
from condic.runtime.host import Quantised
from condic.runtime.manifest import Deltas
from condic.runtime.shipped import shipped_bundles

SMALL = Path(__file__).parents[1] / "data" / "cic-sr-t.condic"
QUALITY = {"astronaut": 63, "coffee": 24, "cat": 40}
SETTINGS = {
    "torch": ("torch", BackendOptions(), "torch"),
    "ort-1-thread": ("ort", BackendOptions(threads=1), "onnxruntime"),
    "ort-2-threads": ("ort", BackendOptions(threads=2), "onnxruntime"),
    "ort-as-written": ("ort", BackendOptions(threads=1, optimise=False), "onnxruntime"),
    "openvino": ("openvino", BackendOptions(), "openvino"),
}
Pixels = np.ndarray


@lru_cache
def bundle_of(preset: str) -> Bundle:
    return read_bundle(SMALL if preset == "t" else shipped_bundles()["cic-sr-s"])


@lru_cache
def codec_of(preset: str, setting: str) -> Codec:
    name, options, library = SETTINGS[setting]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return Codec(bundle_of(preset), name, options)


@pytest.fixture(scope="module")
def quantised(photographs: dict[str, Pixels]) -> Callable[[str, str, str], tuple[Quantised, bytes]]:
    """`quantised(preset, setting, photograph)`: what an encoder made of a photograph, and the file."""

    @lru_cache
    def encode(preset: str, setting: str, name: str) -> tuple[Quantised, bytes]:
        codec = codec_of(preset, setting)
        result = codec.host.quantise(photographs[name], QUALITY[name])
        return result, codec.pack(result)

    return encode


@pytest.mark.parametrize("encoder", SETTINGS)
@pytest.mark.parametrize("name", QUALITY)
@pytest.mark.parametrize("preset", ["t", "s"])
def test_every_backend_recovers_every_encoders_latents(
    preset: str, name: str, encoder: str, quantised: Callable[..., tuple[Quantised, bytes]]
) -> None:
    if preset == "s" and "cic-sr-s" not in shipped_bundles():
        pytest.skip("no weights of cic-sr are shipped")
    wanted, data = quantised(preset, encoder, name)
    for decoder, (_, _, library) in SETTINGS.items():
        if importlib.util.find_spec(library) is None:
            continue
        latents = codec_of(preset, decoder).decode(data, latents=True).latents
        assert list(latents) == ["lr_hyper", "lr", "hyper", "main"]
        for coded in wanted.latents:
            np.testing.assert_array_equal(latents[coded.name], coded.integers, err_msg=f"{encoder} to {decoder}")


@dataclass
class Disturbed:
    """Graphs of the entropy path whose outputs are off by `share` of their delta at a level, up or down at random."""

    codec: Codec
    level: int
    share: float

    def run(self, role: str, inputs: Sequence[Any]) -> list[Any]:
        outputs = self._original(role, inputs)
        found = _guards(self.codec.bundle, self.level).get(role)
        if found is None:
            return outputs
        rng = np.random.default_rng(len(role))
        parts = np.split(outputs[0], len(found), axis=1)
        return [np.concatenate([
            (x + self.share * delta * rng.choice([-1.0, 1.0], x.shape)).astype(np.float32)
            for x, delta in zip(parts, found, strict=True)
        ], axis=1)]  # fmt: skip

    def __enter__(self) -> Codec:
        self._original = self.codec.graphs.run
        self.codec.graphs.run = self.run  # type: ignore[method-assign]
        return self.codec

    def __exit__(self, *_: object) -> None:
        self.codec.graphs.run = self._original  # type: ignore[method-assign]


def _guards(bundle: Bundle, level: int) -> dict[str, list[float]]:
    """By role, the delta at a level of each part of its output in the output's own units."""
    result = {}
    for latent in bundle.manifest.latents:
        for chunk in latent.chunks if latent.guard else ():
            guard = latent.guard
            assert guard is not None
            delta = guard.at(level)
            result[chunk.graph or ""] = [delta.mean * guard.mean_step / 16, delta.index]
            result[chunk.residual or ""] = [delta.residual * guard.residual_step / 16]
    return result


@pytest.mark.parametrize("name", QUALITY)
def test_outputs_off_by_half_of_delta_still_decode(
    name: str, quantised: Callable[..., tuple[Quantised, bytes]]
) -> None:
    wanted, data = quantised("t", "ort-1-thread", name)
    with Disturbed(Codec(bundle_of("t"), "ort", BackendOptions(threads=1)), QUALITY[name], 0.5) as codec:
        latents = codec.decode(data, latents=True).latents
    for coded in wanted.latents:
        np.testing.assert_array_equal(latents[coded.name], coded.integers)


@pytest.mark.parametrize("name", QUALITY)
def test_outputs_off_by_fifty_deltas_give_an_error_and_never_a_picture(
    name: str, quantised: Callable[..., tuple[Quantised, bytes]]
) -> None:
    _, data = quantised("t", "ort-1-thread", name)
    off = Disturbed(Codec(bundle_of("t"), "ort", BackendOptions(threads=1)), QUALITY[name], 50)
    with off as codec, pytest.raises(StreamError) as caught:
        codec.decode(data)
    assert isinstance(caught.value, IntegrityError)
    assert "does not have the encoder's checksum" in str(caught.value)


def test_a_file_with_a_wrong_guard_is_refused(quantised: Callable[..., tuple[Quantised, bytes]]) -> None:
    _, data = quantised("t", "ort-1-thread", "coffee")
    stream = read_stream(data)
    assert list(unpack(stream.section(GUARD).payload))

    def with_guard(payload: bytes) -> bytes:
        sections = [replace(s, payload=payload) if s.kind == GUARD else s for s in stream.sections]
        return write_stream(stream.header, sections)

    codec = codec_of("t", "ort-1-thread")
    with pytest.raises(StreamError, match="not a list"):
        codec.decode(with_guard(b""))
    with pytest.raises(StreamError):  # nothing is noted at a place where the encoder went the other way
        codec.decode(with_guard(bytes([1, 20]) + b"\0" * 4))
    values = 3 * sum(x.size for x in codec.decode(data, latents=True).latents.values())
    with pytest.raises(StreamError, match="values that the file does not have"):  # before anything is computed
        Codec(bundle_of("t"), "ort").decode(with_guard(pack(range(values), [True] * values)))
    without = [s for s in stream.sections if s.kind != GUARD]
    with pytest.raises(StreamError, match="does not have the sections"):
        codec.decode(write_stream(replace(stream.header, sections=len(without)), without))


@pytest.mark.parametrize("size", [(1, 1), (3, 130), (129, 64), (128, 128), (40, 300)])
def test_images_of_any_size_come_back_in_their_size(size: tuple[int, int], drawing: Callable[..., Pixels]) -> None:
    codec = codec_of("t", "ort-1-thread")
    data = codec.encode(drawing(*size), 40)
    assert codec.decode(data).image.shape == (*size, 3)
    small, large = codec.preview(data, latents=True), codec.preview(data, large=True)
    assert small.image.shape == (-(-size[0] // 4), -(-size[1] // 4), 3)
    assert large.image.shape == (*size, 3)
    assert list(small.latents) == ["lr_hyper", "lr"]


def test_only_models_that_code_a_smaller_image_have_two_previews(codec: Codec, drawing: Callable[..., Pixels]) -> None:
    data = codec.encode(drawing(40, 40), 10)
    with pytest.raises(InputError, match="one preview only"):
        codec.preview(data, large=True)


@pytest.mark.parametrize(("preset", "size"), [("t", (390, 530)), ("s", (120, 500))])
def test_tiles_give_the_same_latents_and_nearly_the_same_picture(
    preset: str, size: tuple[int, int], drawing: Callable[..., Pixels]
) -> None:
    if preset == "s" and "cic-sr-s" not in shipped_bundles():
        pytest.skip("no weights of cic-sr are shipped")
    codec, tiles = codec_of(preset, "ort-1-thread"), Codec(bundle_of(preset), "ort", tile=128)
    data = codec.encode(drawing(*size), 50)
    whole, tiled = (x.decode(data, latents=True) for x in (codec, tiles))
    assert tiled.latents_sha256() == whole.latents_sha256()
    assert np.abs(tiled.image.astype(int) - whole.image).max() <= 1
    across = codec.decode(tiles.encode(drawing(*size), 50)).image  # written in tiles, read whole
    assert np.abs(across.astype(int) - whole.image).mean() < 0.1


def test_a_schedule_of_guarded_chunks_that_does_not_fit_is_refused() -> None:
    bundle = bundle_of("t")
    (*others, main) = bundle.manifest.latents
    assert main.guard is not None
    chunk = main.chunks[0]
    tabled = replace(chunk, graph=None, inputs=(), table="first.main")
    row = np.zeros((64, 2 * main.channels), np.int16)
    bundle = replace(bundle, tables={**bundle.tables, "first.main": row})
    for changed, message in (
        (replace(main, guard=replace(main.guard, levels=(9,), deltas=(Deltas(0.1, 0.26, 0.1),))), "not in 0..1/4"),
        (replace(main, guard=replace(main.guard, levels=(0, 0))), "rising levels"),
        (replace(main, guard=replace(main.guard, levels=(), deltas=())), "rising levels"),
        (replace(main, guard=replace(main.guard, mean_step=0)), "a step that is not in 1..1024"),
        (replace(main, guard=None), "residuals need a guard"),
        (replace(main, chunks=(replace(chunk, residual="synthesis"), *main.chunks[1:])), "not a guarded graph"),
        (replace(main, chunks=(replace(chunk, boxes=chunk.boxes * 2), *main.chunks[1:])), "has 2 boxes"),
        (replace(main, chunks=(replace(tabled, residual="lrp"), *main.chunks[1:])), "lrp is not a guarded graph"),
        (replace(main, chunks=(replace(tabled, residual="synthesis"), *main.chunks[1:])), "not a guarded graph"),
        (replace(main, chunks=(replace(tabled, residual_inputs=()), *main.chunks[1:])), "is given 0 tensors"),
    ):
        with pytest.raises(BundleError, match=message):
            check_bundle(replace(bundle, manifest=replace(bundle.manifest, latents=(*others, changed))))


def test_a_guard_that_goes_on_beyond_the_last_value_is_refused(photographs: dict[str, Pixels]) -> None:
    codec = codec_of("t", "ort-1-thread")
    stream = read_stream(codec.encode(photographs["cat"], 24))
    noted = list(unpack(stream.section(GUARD).payload))
    guard = pack([*(position for position, _ in noted), 10**6], [*(up for _, up in noted), True])
    sections = [replace(s, payload=guard) if s.kind == GUARD else s for s in stream.sections]
    with pytest.raises(StreamError, match="values that the file does not have"):
        codec.decode(write_stream(stream.header, sections))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guard": {"levels": (5, 5), "deltas": (Deltas(0.1, 0.1, 0.1),) * 2}}, "rising levels"),
        ({"guard": {"levels": (5,), "deltas": (Deltas(0.1, 0.1, 0.3),)}}, r"0\.\.1/4"),
        ({"residual_inputs": lambda names: names[:-1]}, "is given"),
        ({"residual_inputs": lambda names: ("nothing", *names[1:])}, "before it exists"),
        ({"stride": 2}, "does not give"),
    ],
)
def test_a_guarded_latent_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    bundle = bundle_of("t")
    *others, main = bundle.manifest.latents
    first, *rest = main.chunks
    graphs = bundle.manifest.graphs
    if "guard" in change:
        main = replace(main, guard=replace(main.guard, **change["guard"]))
    elif "residual_inputs" in change:
        inputs = change["residual_inputs"](first.residual_inputs)
        main = replace(main, chunks=(replace(first, residual_inputs=inputs), *rest))
    else:
        graphs = tuple(
            replace(x, outputs=tuple(replace(y, stride=2 * y.stride) for y in x.outputs))
            if x.role == first.residual else x for x in graphs
        )  # fmt: skip
    manifest = replace(bundle.manifest, latents=(*others, main), graphs=graphs)
    with pytest.raises(BundleError, match=message):
        check_bundle(replace(bundle, manifest=manifest))
