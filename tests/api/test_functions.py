"""The public face: condic.encode and condic.decode on every kind and size of image."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import condic
from condic.errors import InputError, LimitError
from condic.runtime.backends import Runner
from condic.runtime.bitstream import HEADER_BYTES, Limits, read_header
from condic.runtime.bundle import Bundle, read_bundle, write_bundle
from condic.runtime.codec import Codec, load_codec
from condic.runtime.manifest import Graph
from condic.runtime.timings import Timings

Draw = Callable[..., np.ndarray]
SIZES = [(1, 1), (1, 4000), (4000, 1), (17, 31), (128, 128), (129, 127), (127, 257)]


@pytest.fixture(scope="module")
def encode(bundle_path: Path) -> Callable[..., bytes]:
    pytest.importorskip("onnxruntime")
    return partial(condic.encode, model=bundle_path)


@pytest.fixture(scope="module")
def decode(bundle_path: Path) -> Callable[..., np.ndarray]:
    return partial(condic.decode, model=bundle_path)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_image_comes_back_in_its_own_shape(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw, size: tuple[int, int], channels: int
) -> None:
    image = drawing(*size, channels)
    image = image[:, :, 0] if channels == 1 else image
    decoded = decode(encode(image, quality=30))
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    if channels in (2, 4):
        assert np.array_equal(decoded[:, :, -1], image[:, :, -1]), "alpha is lossless"


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("1", 1), ("CMYK", 3)])
def test_pillow_images_are_taken(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw, mode: str, channels: int
) -> None:
    image = Image.fromarray(drawing(40, 30, 4)).convert(mode)
    decoded = decode(encode(image))
    assert decoded.shape == ((40, 30) if channels == 1 else (40, 30, channels))


def test_a_pillow_image_and_its_array_give_the_same_file(encode: Callable[..., bytes], drawing: Draw) -> None:
    for channels in (2, 3, 4):
        array = drawing(30, 40, channels)
        assert encode(Image.fromarray(array), 20) == encode(array, 20)


def test_a_palette_with_transparency_keeps_it(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw
) -> None:
    image = Image.fromarray(drawing(20, 20)).quantize(8)
    image.info["transparency"] = 3
    expected = np.asarray(image.convert("RGBA"))[:, :, 3]
    assert 0 < np.count_nonzero(expected) < expected.size
    assert np.array_equal(decode(encode(image))[:, :, 3], expected)


def test_sixteen_bit_images_keep_their_brightness(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray]
) -> None:
    """Pillow's own conversion to 8 bits clips: everything above 255 would be white."""
    wide = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    with pytest.warns(condic.CondicWarning, match="reduced to 8"):
        decoded = decode(encode(Image.fromarray(wide), 63))
    narrow = decode(encode((wide >> 8).astype(np.uint8), 63))
    assert np.abs(decoded.astype(int) - narrow).mean() < 4


def test_arrays_need_not_be_contiguous(encode: Callable[..., bytes], drawing: Draw) -> None:
    image = drawing(60, 50, 4)
    for view in (image[::2, ::-1, :3], image.transpose(1, 0, 2), image[:, :, 2], np.asfortranarray(image)):
        assert encode(view, 10) == encode(np.ascontiguousarray(view), 10)


def test_an_image_is_not_changed_by_encoding(encode: Callable[..., bytes], drawing: Draw) -> None:
    image = drawing(30, 30, 4)
    before = image.copy()
    image.flags.writeable = False
    encode(image)
    assert np.array_equal(image, before)


def test_files_may_be_given_as_any_buffer(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw
) -> None:
    data = encode(drawing(30, 30))
    expected = decode(data)
    for buffer in (memoryview(data), bytearray(data), memoryview(b"x" + data)[1:]):
        assert np.array_equal(decode(buffer), expected)


def test_a_decoded_image_may_be_changed(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw
) -> None:
    for channels in (1, 2, 3, 4):
        decode(encode(drawing(20, 20, channels)))[0] = 0


class Unreadable:
    """Says that it is an array, and fails to be one."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("it is on a device")


def released() -> memoryview:
    """A buffer whose owner has taken it back."""
    view = memoryview(b"data")
    view.release()
    return view


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8, 3), bool),
        np.zeros((8, 8, 3), np.int8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 0), np.uint8), np.zeros(8, np.uint8),
        np.zeros((8, 8, 5), np.uint8), np.zeros((8, 8, 0), np.uint8), np.zeros((1, 8, 8, 3), np.uint8), np.uint8(3),
        None, "picture.png", [[1, 2], [3]], object(), Unreadable(), released(),
    ],
    ids=lambda x: f"{x.dtype}{list(x.shape)}" if isinstance(x, (np.ndarray, np.generic)) else type(x).__name__,
)  # fmt: skip
def test_what_is_no_image_is_refused(encode: Callable[..., bytes], image: Any) -> None:
    with pytest.raises(condic.InputError) as caught:
        encode(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quality", [-1, 64, 1000, 31.5, "32"])
def test_a_quality_that_is_no_level_is_refused(encode: Callable[..., bytes], drawing: Draw, quality: Any) -> None:
    with pytest.raises(condic.InputError, match=r"0\.\.63"):
        encode(drawing(8, 8), quality)


def test_every_quality_level_works(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw
) -> None:
    image = drawing(20, 20)
    for quality in (*range(64), np.int64(7), np.uint8(63)):
        data = encode(image, quality)
        assert data[6] == quality
        assert decode(data).shape == image.shape


def test_images_over_the_limits_are_refused_before_any_work(codec: Codec) -> None:
    for shape in ((1, 65536), (65536, 1)):
        with pytest.raises(condic.InputError, match="over the limit of"):
            codec.encode(np.broadcast_to(np.uint8(0), shape), 0)
    with pytest.raises(condic.InputError, match="over the limit of"):
        codec.encode(np.broadcast_to(np.uint8(0), (16385, 16384, 3)), 0)
    with pytest.raises(condic.InputError, match="20x10 is over the limit of 199 pixels"):
        codec.encode(np.zeros((10, 20), np.uint8), 0, limits=Limits(pixels=199))


def test_files_over_the_limits_are_refused(
    encode: Callable[..., bytes], decode: Callable[..., np.ndarray], drawing: Draw
) -> None:
    data = encode(drawing(10, 20))
    with pytest.raises(condic.StreamError, match="20x10 is over the limit of 199 pixels"):
        decode(data, limits=Limits(pixels=199))
    assert decode(data, limits=Limits(pixels=200)).shape == (10, 20, 3)


def test_another_model_s_file_is_refused(encode: Callable[..., bytes], drawing: Draw, shipped_codec: Codec) -> None:
    with pytest.raises(condic.BundleError, match="dcic-sgp-s"):
        shipped_codec.decode(encode(drawing(10, 10)))


def test_unknown_names_are_refused(drawing: Draw, bundle_path: Path) -> None:
    with pytest.raises(condic.BundleError, match="no-such-model"):
        condic.encode(drawing(8, 8), model="no-such-model")
    with pytest.raises(condic.BackendError, match="unknown backend 'abacus'; known: auto, "):
        condic.encode(drawing(8, 8), model=bundle_path, backend="abacus")


def test_auto_takes_a_backend_that_works(bundle_path: Path, drawing: Draw) -> None:
    pytest.importorskip("onnxruntime")
    codec = condic.open_codec(bundle_path, "auto")
    assert codec.backend_name in ("ort", "openvino", "torch")
    assert codec.backend.startswith(f"{codec.backend_name} (")
    assert len(codec.encode(drawing(8, 8), 1)) > HEADER_BYTES


def test_auto_takes_nothing_that_has_to_be_asked_for(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def refuse(name: str, options: object = None) -> None:
        opened.append(name)
        raise condic.BackendError(f"{name} is broken")

    monkeypatch.setattr("condic.runtime.backends.open_backend", refuse)
    with pytest.raises(condic.BackendError, match="no backend works here: ort is broken; openvino"):
        load_codec(str(bundle_path))
    assert not {"tensorrt", "ort-cuda"} & set(opened)


def test_a_codec_is_opened_once_per_set_of_arguments(bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert condic.open_codec(bundle_path) is condic.open_codec(str(bundle_path))
    assert condic.open_codec(bundle_path) is not condic.open_codec(bundle_path, threads=1)


def test_a_bundle_that_has_changed_is_opened_anew(
    bundle_path: Path, shipped_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(bundle_path, tmp_path / folder / "m.condic")
    monkeypatch.chdir(tmp_path / "a")
    first = condic.open_codec("m.condic")
    monkeypatch.chdir(tmp_path / "b")
    assert condic.open_codec("m.condic") is not first
    monkeypatch.chdir(tmp_path / "a")
    assert condic.open_codec("m.condic") is first
    write_bundle(shipped_bundle, Path("m.condic"))
    assert condic.open_codec("m.condic").bundle.id == shipped_bundle.id


def test_the_codecs_that_were_used_last_are_kept(bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    kept = condic.open_codec(bundle_path, threads=9)
    others = [condic.open_codec(bundle_path, threads=10 + k) for k in range(3)]
    assert condic.open_codec(bundle_path, threads=9) is kept
    condic.open_codec(bundle_path, threads=13)
    assert condic.open_codec(bundle_path, threads=9) is kept
    assert condic.open_codec(bundle_path, threads=10) is not others[0]


def test_a_codec_that_is_open_does_not_wait_for_another_that_is_loading(
    bundle_path: Path, drawing: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from condic.runtime.backends.ort import OrtBackend

    data = condic.encode(drawing(40, 30), model=bundle_path, backend="ort")
    condic.decode(data, bundle_path, "ort")
    loading, go_on, load = threading.Event(), threading.Event(), OrtBackend.load

    def slowly(self: OrtBackend, graph: Graph, bundle: Bundle) -> Runner:
        loading.set()
        assert go_on.wait(60)
        return load(self, graph, bundle)

    monkeypatch.setattr(OrtBackend, "load", slowly)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(Codec(read_bundle(bundle_path), "ort").load)
        assert loading.wait(60)
        try:
            assert pool.submit(condic.decode, data, bundle_path, "ort").result(timeout=60).shape == (40, 30, 3)
            assert not other.done()
        finally:
            go_on.set()
        other.result()


def test_rate_and_quality_rise_together(shipped_codec: Codec, photographs: dict[str, np.ndarray]) -> None:
    for name, image in photographs.items():
        files = [shipped_codec.encode(image, quality) for quality in (0, 16, 32, 48, 63)]
        sizes = [len(data) for data in files]
        psnrs = [psnr(shipped_codec.decode(data).image, image) for data in files]
        assert sizes == sorted(set(sizes)), (name, sizes)
        assert psnrs == sorted(set(psnrs)), (name, psnrs)
        assert psnrs[0] > 20
        assert psnrs[-1] - psnrs[0] > 2


def test_a_preview_looks_like_the_image(shipped_codec: Codec, photographs: dict[str, np.ndarray]) -> None:
    for name, image in photographs.items():
        data = shipped_codec.encode(image, 40)
        decoded, preview = shipped_codec.decode(data, latents=True), shipped_codec.preview(data, latents=True)
        assert preview.image.shape == image.shape
        assert 15 < psnr(preview.image, image) < psnr(decoded.image, image), name
        assert list(preview.latents) == ["prior"]
        assert np.array_equal(preview.latents["prior"], decoded.latents["prior"])


def test_a_preview_keeps_grey_and_alpha(codec: Codec, drawing: Draw) -> None:
    image = drawing(40, 50, 2)
    preview = codec.preview(codec.encode(image, 3)).image
    assert preview.shape == image.shape
    assert np.array_equal(preview[:, :, 1], image[:, :, 1])


def test_a_header_says_what_was_encoded(encode: Callable[..., bytes], codec: Codec, drawing: Draw) -> None:
    for channels, (grey, alpha) in {2: (True, True), 3: (False, False), 4: (False, True)}.items():
        header = read_header(encode(drawing(21, 34, channels), 5))
        assert (header.width, header.height, header.quality, header.bundle_id) == (34, 21, 5, codec.bundle.id)
        assert (bool(header.flags & 1), bool(header.flags & 2)) == (grey, alpha)


def test_timings_name_every_stage(codec: Codec, drawing: Draw) -> None:
    encoding, decoding = Timings(), Timings()
    codec.decode(codec.encode(drawing(40, 40), 9, encoding), decoding)
    assert {"pixels", "analysis", "context_0", "context_3"} <= encoding.seconds.keys()
    assert {"pixels", "synthesis", "hyper_synthesis"} <= decoding.seconds.keys()
    assert "synthesis" not in encoding.seconds
    assert "analysis" not in decoding.seconds


def test_every_error_is_a_condic_error() -> None:
    for name in ("InputError", "StreamError", "BundleError", "BackendError"):
        assert issubclass(getattr(condic, name), condic.CondicError)
    assert issubclass(condic.IntegrityError, condic.StreamError)
    assert set(condic.__all__) <= set(dir(condic)) | {"decode", "encode", "open_codec"}
    with pytest.raises(AttributeError, match="no attribute 'decompress'"):
        condic.decompress  # noqa: B018


def test_limits_hold_for_each_of_many(codec: Codec, bundle_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    images = [drawing(20, 20), drawing(20, 60)]
    files = [codec.encode(image, 10) for image in images]
    with pytest.raises(LimitError):
        list(condic.decode_many(files, str(bundle_path), limits=Limits(side=30)))
    with pytest.raises(LimitError):
        list(condic.encode_many(images, 10, str(bundle_path), limits=Limits(side=30)))


@pytest.mark.parametrize("threads", [True, [], "2", 257, -1])
def test_threads_that_are_no_number_of_them_are_refused(bundle_path: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="give an integer from 0 to 256"):
        condic.open_codec(bundle_path, threads=threads)


def test_threads_may_be_numpys(bundle_path: Path) -> None:
    assert condic.open_codec(bundle_path, threads=np.int64(1)).backend_name


def test_many_images_are_stripped_as_one_is(bundle_path: Path, drawing: Draw) -> None:
    pytest.importorskip("onnxruntime")
    image = Image.fromarray(drawing(20, 24))
    image.info["icc_profile"] = b"a profile that nobody reads"
    kept, stripped = (list(condic.encode_many([image] * 2, 9, bundle_path, strip=strip)) for strip in (False, True))
    assert stripped == [condic.encode(image, 9, bundle_path, strip=True)] * 2
    assert not condic.open(stripped[0]).metadata.sizes()
    assert condic.open(kept[0]).metadata.sizes()
