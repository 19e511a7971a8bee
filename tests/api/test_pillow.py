"""Pillow reads and writes .cdic files once condic.pillow is imported."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import condic
import condic.pillow
from condic.runtime.codec import Codec

Draw = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def _small_model(bundle_path: Path) -> Iterator[None]:
    pytest.importorskip("onnxruntime")
    condic.pillow.register(bundle_path)
    yield
    condic.pillow.register()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_saving_and_opening_goes_through_the_codec(
    codec: Codec, drawing: Draw, tmp_path: Path, bundle_path: Path, channels: int, mode: str
) -> None:
    pixels = drawing(30, 40, channels)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    image.save(tmp_path / "a.cdic", quality=11, model=bundle_path)
    assert (tmp_path / "a.cdic").read_bytes() == codec.encode(image, 11)
    with Image.open(tmp_path / "a.cdic") as opened:
        assert (opened.size, opened.mode, opened.format) == ((40, 30), mode, "CDIC")
        assert opened.info == {"quality": 11, "model_id": codec.bundle.id.hex()}
        assert opened.get_format_mimetype() == "image/x-cdic"
        decoded = codec.decode((tmp_path / "a.cdic").read_bytes()).image
        assert np.array_equal(np.asarray(opened), decoded)
        assert opened.convert("L").size == (40, 30)


def test_opening_decodes_nothing(codec: Codec, drawing: Draw, tmp_path: Path) -> None:
    (tmp_path / "a.cdic").write_bytes(codec.encode(drawing(30, 40), 3))
    code = """if True:
        import json, sys
        import condic.pillow
        from PIL import Image
        image = Image.open(sys.argv[1])
        assert image.size == (40, 30)
        print(json.dumps([name for name in sys.modules if name in ("onnxruntime", "condic.runtime.codec")]))
    """
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.cdic"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_streams_work_like_paths(codec: Codec, drawing: Draw, bundle_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(drawing(30, 40)).save(buffer, "CDIC", model=bundle_path)
    assert buffer.getvalue() == codec.encode(drawing(30, 40), 32)
    buffer.seek(0)
    image = Image.open(buffer)
    image.load()
    image.load()
    assert np.array_equal(np.asarray(image.copy()), codec.decode(buffer.getvalue()).image)


def test_metadata_goes_along(drawing: Draw, bundle_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    source, first = io.BytesIO(), io.BytesIO()
    Image.fromarray(drawing(8, 8)).save(source, "JPEG", exif=exif, icc_profile=b"profile", xmp=b"<x/>")
    with Image.open(source) as image:
        image.save(first, "CDIC", model=bundle_path)
        with Image.open(first) as again:
            assert again.info["icc_profile"] == b"profile"
            assert again.info["xmp"] == b"<x/>"
            assert again.getexif()[0x010F] == "Camera"
        for options in ({"icc_profile": None, "exif": None, "xmp": b""}, {"exif": Image.Exif(), "icc_profile": b"p"}):
            stripped = io.BytesIO()
            image.save(stripped, "CDIC", model=bundle_path, **options)
            expected = condic.Metadata(options["icc_profile"] or b"", xmp=b"" if "xmp" in options else b"<x/>")
            kept = condic.open(stripped.getvalue()).metadata
            assert (kept.icc_profile, kept.xmp) == (expected.icc_profile, expected.xmp)
            assert b"Camera" not in kept.exif


def test_metadata_that_is_given_follows_the_colours(bundle_path: Path, drawing: Draw) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", condic.CondicWarning)  # the profile is none
        Image.fromarray(drawing(8, 8, 4), "CMYK").save(buffer, "CDIC", model=bundle_path, icc_profile=b"of CMYK")
    assert condic.open(buffer.getvalue()).metadata.icc_profile == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, None])
def test_metadata_is_given_as_bytes(bundle_path: Path, drawing: Draw, kind: Callable[[bytes], Any] | None) -> None:
    buffer, image = io.BytesIO(), Image.fromarray(drawing(8, 8))
    if kind is None:
        image.save(buffer, "CDIC", model=bundle_path, xmp="<x/>")
        assert condic.open(buffer.getvalue()).metadata.xmp == b"<x/>"
        for name in ("exif", "icc_profile"):
            with pytest.raises(condic.InputError, match=f"^{name} is a str; give bytes$"):
                image.save(io.BytesIO(), "CDIC", model=bundle_path, **{name: "text"})
        return
    image.save(buffer, "CDIC", model=bundle_path, exif=kind(b"e"), icc_profile=kind(b"i"), xmp=kind(b"x"))
    assert condic.open(buffer.getvalue()).metadata == condic.Metadata(b"i", b"e", b"x")


def test_metadata_over_the_limit_is_left_out_with_a_warning(bundle_path: Path, drawing: Draw) -> None:
    buffer = io.BytesIO()
    with pytest.warns(condic.CondicWarning, match="metadata of over 16777216 bytes is left out"):
        Image.fromarray(drawing(8, 8)).save(buffer, "CDIC", model=bundle_path, xmp=b"x" * 2**24)
    assert condic.open(buffer.getvalue()).metadata == condic.Metadata()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_an_opened_image_have_its_pixels(
    codec: Codec, drawing: Draw, copied: Callable[[Image.Image], Image.Image]
) -> None:
    data = codec.encode(drawing(30, 40), 20)
    assert np.array_equal(np.asarray(copied(Image.open(io.BytesIO(data)))), codec.decode(data).image)


def test_files_are_upright(bundle_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "CDIC", model=bundle_path, exif=exif)
    with Image.open(buffer) as image:
        assert image.size == (20, 40)
        assert image.getexif()[0x0112] == 1


def test_exif_of_places_alone_is_kept(bundle_path: Path) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (40, 20)).save(buffer, "CDIC", model=bundle_path, exif=exif)
    with Image.open(buffer) as saved:
        assert saved.getexif().get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("options", [{"exif": None}, {"exif": b""}, {"exif": Image.Exif()}, {"strip": True}])
def test_an_image_whose_exif_is_left_out_is_upright_too(bundle_path: Path, options: dict[str, Any]) -> None:
    exif, photo, buffer = Image.Exif(), io.BytesIO(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(photo, "JPEG", exif=exif)
    with Image.open(photo) as image:
        image.save(buffer, "CDIC", model=bundle_path, **options)
        assert image.size == (40, 20)
    with Image.open(buffer) as saved:
        assert saved.size == (20, 40)
        assert "exif" not in saved.info


def test_a_limit_of_size_can_be_given(drawing: Draw, bundle_path: Path) -> None:
    buffer = io.BytesIO()
    most = len(condic.encode(drawing(60, 70), 20, bundle_path))
    Image.fromarray(drawing(60, 70)).save(buffer, "CDIC", model=bundle_path, max_bytes=most)
    assert len(buffer.getvalue()) <= most


def test_damage_is_said_the_way_pillow_says_it(codec: Codec, drawing: Draw) -> None:
    data = codec.encode(drawing(30, 40), 3)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data[:-1]))
    foreign = Image.open(io.BytesIO(data))
    condic.pillow.register("no-such-model")
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="no-such-model"):
        image.load()
    foreign.load()


def test_pillow_s_own_limit_on_pixels_holds(codec: Codec, drawing: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(codec.encode(drawing(30, 40), 3)))


def test_the_entry_point_leads_to_the_plugin() -> None:
    (point,) = entry_points(group="PIL.plugins", name="cdic")
    assert point.load() is condic.pillow


def test_a_file_is_closed_once_it_is_loaded(codec: Codec, drawing: Draw, tmp_path: Path) -> None:
    path = tmp_path / "a.cdic"
    path.write_bytes(codec.encode(drawing(9, 9), 3))
    image = Image.open(path)
    file = image.fp
    image.load()
    assert file.closed
    with path.open("rb") as own:
        Image.open(own).load()
        assert not own.closed


def test_saving_can_strip_metadata(drawing: Draw, bundle_path: Path) -> None:
    image = Image.fromarray(drawing(9, 9))
    image.info["icc_profile"] = b"profile"
    sizes = []
    for strip in (False, True):
        file = io.BytesIO()
        image.save(file, "CDIC", model=bundle_path, strip=strip)
        sizes.append(condic.open(file.getvalue()).metadata.icc_profile)
    assert sizes == [b"profile", b""]
