"""Metadata and looks survive the way through a condic file into decoded pictures, or a warning says what is lost."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from condic.errors import CondicWarning, InputError, LimitError
from condic.runtime.bitstream import Limits
from condic.runtime.codec import Codec
from condic.runtime.image_files import read_picture, write_image
from condic.runtime.metadata import Metadata, bare_exif

Draw = Callable[..., np.ndarray]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>\xc3\xa9</rdf:RDF></x:xmpmeta>'
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(**tags: object) -> bytes:
    made = Image.Exif()
    made[0x010F], made[0x8298] = "Camera", "Somebody"
    made.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    return bare_exif(made.tobytes())


FULL = Metadata(SRGB, exif(), XMP)


PRIMARIES = {
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}
"""XYZ of red, green and blue, adapted to D50."""


def wide_profile(name: str) -> bytes:
    """A profile with the primaries of a wide-gamut space and a gamma of 2.2."""
    columns = PRIMARIES[name]
    gamma = b"curv" + struct.pack(">IIH", 0, 1, round(2.2 * 256)) + b"\0\0"
    tags = {f"{c}XYZ".encode(): _xyz(column) for c, column in zip("rgb", columns, strict=True)}
    tags |= {f"{c}TRC".encode(): gamma for c in "rgb"} | {b"wtpt": _xyz((0.9642, 1.0, 0.8249))}
    directory, body, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        directory += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = bytearray(128)
    struct.pack_into(">I4sI4s4s4s", head, 0, start + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head[36:40], head[68:80] = b"acsp", _xyz((0.9642, 1.0, 0.8249))[8:]
    return bytes(head) + struct.pack(">I", len(tags)) + directory + body


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def colours(image: Image.Image, profile: bytes) -> np.ndarray:
    """What a colour-managed viewer shows: CIE Lab, float [H, W, 3]."""
    lab = ImageCms.profileToProfile(
        image.convert("RGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("LAB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC, "LAB",
    )  # fmt: skip
    assert lab is not None
    planes = np.asarray(lab).astype(np.uint8)
    return np.stack(
        [planes[..., 0] * (100 / 255), *(planes[..., k].view(np.int8).astype(float) for k in (1, 2))], axis=-1
    )


@pytest.fixture
def path(tmp_path: Path, drawing: Draw) -> Path:
    """A picture with metadata of every kind."""
    write_image(tmp_path / "given.png", drawing(40, 50), FULL)
    return tmp_path / "given.png"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_metadata_is_carried_into_decoded_pictures(path: Path, codec: Codec, suffix: str, tmp_path: Path) -> None:
    data = codec.encode(read_picture(path), 20)
    decoded = codec.decode(data)
    assert decoded.metadata == FULL
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_image(tmp_path / f"out{suffix}", decoded.image, decoded.metadata)
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.info["icc_profile"] == SRGB
        assert image.info["xmp"] == XMP
        tags = image.getexif()
        assert (tags[0x010F], tags[0x8298]) == ("Camera", "Somebody")
        if suffix != ".tiff":
            assert bare_exif(image.info["exif"]) == FULL.exif
    assert read_picture(tmp_path / f"out{suffix}").metadata.icc_profile == SRGB


def test_a_picture_without_metadata_has_no_section(drawing: Draw, codec: Codec, path: Path) -> None:
    picture = read_picture(path)
    plain = codec.encode(np.asarray(picture.rgb), 20)
    assert codec.encode(picture.without_metadata(), 20) == plain
    assert not codec.decode(plain).metadata
    assert 300 < len(codec.encode(picture, 20)) - len(plain) < len(SRGB) + len(FULL.exif) + len(XMP) + 40


def test_a_preview_carries_metadata_too(path: Path, codec: Codec) -> None:
    assert codec.preview(codec.encode(read_picture(path), 20)).metadata == FULL


@pytest.mark.parametrize("suffix", [".bmp", ".ppm"])
def test_a_format_that_holds_no_metadata_warns(drawing: Draw, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    with pytest.warns(CondicWarning, match=f"out{suffix}: [A-Z]* cannot hold exif, icc_profile, xmp"):
        write_image(target, drawing(8, 8), FULL)
    assert target.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_xmp_in_any_encoding_is_text_in_a_png(drawing: Draw, tmp_path: Path, encoding: str) -> None:
    write_image(tmp_path / "out.png", drawing(8, 9), Metadata(xmp=XMP.decode().encode(encoding)))
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["xmp"] == XMP


def test_xmp_that_is_no_text_is_replaced_with_a_warning(drawing: Draw, tmp_path: Path) -> None:
    with pytest.warns(CondicWarning, match="XMP is no UTF-8"):
        write_image(tmp_path / "out.png", drawing(8, 9), Metadata(xmp=b"<x>\xff</x>"))


def test_a_profile_that_pillow_does_not_read_in_a_png_is_warned_of(
    drawing: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2**20)  # its default, which condic-run raises
    write_image(tmp_path / "small.png", drawing(8, 9), Metadata(bytes(2**20)))
    assert read_picture(tmp_path / "small.png").metadata.icc_profile == bytes(2**20)
    with pytest.warns(CondicWarning, match=r"large.png: Pillow does not read .* use .tiff"):
        write_image(tmp_path / "large.png", drawing(8, 9), Metadata(bytes(2**20 + 1)))
    with pytest.raises(InputError, match="too large"):
        read_picture(tmp_path / "large.png")


def test_exif_and_xmp_beyond_a_jpeg_segment_are_left_out_with_a_warning(drawing: Draw, tmp_path: Path) -> None:
    noise = os.urandom(70000)
    with pytest.warns(CondicWarning, match="JPEG cannot hold exif, xmp"):
        write_image(tmp_path / "a.jpg", drawing(8, 8), Metadata(noise, b"II*\0" + noise, XMP + noise))
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["icc_profile"] == noise, "ICC profiles span several segments"
        assert "exif" not in image.info
    largest = Metadata(exif=b"II*\0" + bytes(65523), xmp=b"x" * 65504)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_image(tmp_path / "b.jpg", drawing(8, 8), largest)


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".jpg", 4), (".jpg", 2), (".ppm", 4), (".ppm", 2), (".bmp", 4), (".bmp", 2), (".JPEG", 4)]
)
def test_alpha_is_never_dropped(drawing: Draw, tmp_path: Path, suffix: str, channels: int) -> None:
    with pytest.raises(InputError, match=r"cannot hold alpha; use \.png, \.webp or \.tiff"):
        write_image(tmp_path / f"out{suffix}", drawing(8, 8, channels))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 2), (".ppm", 4), (".bmp", 4)])
def test_alpha_that_is_opaque_everywhere_needs_no_place(
    drawing: Draw, tmp_path: Path, suffix: str, channels: int
) -> None:
    pixels = drawing(8, 8, channels)
    pixels[..., -1] = 255
    write_image(tmp_path / f"out{suffix}", pixels)
    written = read_picture(tmp_path / f"out{suffix}")
    assert written.alpha is None
    assert np.abs(written.rgb.astype(int) - pixels[..., :-1]).max() <= (8 if suffix == ".jpg" else 0)


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".png", 4), (".png", 2), (".webp", 4), (".tif", 4), (".tif", 2), (".bmp", 3)]
)
def test_lossless_formats_hold_the_decoded_pixels(drawing: Draw, tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = drawing(9, 8, channels)
    write_image(tmp_path / f"out{suffix}", pixels)
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("space", PRIMARIES)
def test_a_wide_gamut_picture_keeps_its_look(
    photographs: dict[str, np.ndarray], shipped_codec: Codec, tmp_path: Path, space: str
) -> None:
    """Colour-managed, decoded and given differ by the codec's error; without the profile they would differ by far."""
    profile, pixels = wide_profile(space), photographs["coffee"]
    write_image(tmp_path / "given.png", pixels, Metadata(profile))
    decoded = shipped_codec.decode(shipped_codec.encode(read_picture(tmp_path / "given.png"), 63))
    write_image(tmp_path / "decoded.png", decoded.image, decoded.metadata)
    with Image.open(tmp_path / "given.png") as given, Image.open(tmp_path / "decoded.png") as seen:
        right = colours(given, profile)
        managed = np.linalg.norm(colours(seen, seen.info["icc_profile"]) - right, axis=2).mean()
        stripped = np.linalg.norm(colours(seen, SRGB) - right, axis=2).mean()
        floor = np.linalg.norm(colours(Image.fromarray(decoded.image), profile) - right, axis=2).mean()
    assert managed == floor
    assert managed < 3 < stripped


def test_open_files_and_bytes_are_read_like_paths(path: Path) -> None:
    expected = read_picture(path)
    with path.open("rb") as file:
        assert np.array_equal(read_picture(file).rgb, expected.rgb)
        assert not file.closed
    for source in (path.read_bytes(), memoryview(path.read_bytes()), io.BytesIO(path.read_bytes()), str(path)):
        picture = read_picture(source)
        assert np.array_equal(picture.rgb, expected.rgb)
        assert picture.metadata == FULL


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_what_pillow_does_not_read_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^data: "):
        read_picture(data)


def test_exif_never_says_how_the_pixels_of_a_tiff_lie(drawing: Draw, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[256], exif[257], exif[278] = "Camera", 4000, 3000, 1
    pixels = drawing(40, 50)
    write_image(tmp_path / "out.tiff", pixels, Metadata(exif=bare_exif(exif.tobytes())))
    with Image.open(tmp_path / "out.tiff") as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.getexif()[0x010F] == "Camera"


def test_unreadable_exif_is_left_out_of_a_tiff_with_a_warning(drawing: Draw, tmp_path: Path) -> None:
    with pytest.warns(CondicWarning, match="EXIF data is unreadable"):
        write_image(tmp_path / "out.tiff", drawing(8, 8), Metadata(exif=b"junkjunkjunkjunk"))
    assert Image.open(tmp_path / "out.tiff").size == (8, 8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["PNG", "GIF", "TIFF", "DDS", "SPIDER", "AVIF", "WEBP", "JPEG", "BMP", "TGA", "PPM", "JPEG2000"]
)
def test_any_broken_image_is_an_input_error(kind: str, drawing: Callable[..., np.ndarray]) -> None:
    whole, rng = io.BytesIO(), np.random.default_rng(len(kind))
    image = Image.fromarray(drawing(20, 30))
    try:
        (image.convert("F") if kind == "SPIDER" else image).save(whole, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    refused = 0
    for _ in range(300):
        data = bytearray(whole.getvalue())
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(256)
        try:
            read_picture(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]), Limits(pixels=2**20))
        except InputError:
            refused += 1
    assert refused


def test_lossless_webp_keeps_colours_that_are_transparent(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    pixels[:20, :, 3] = 0
    write_image(tmp_path / "a.webp", pixels)
    with Image.open(tmp_path / "a.webp") as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(("size", "fits"), [(65527, True), (65528, False)])
def test_exif_as_long_as_a_jpeg_file_holds(tmp_path: Path, size: int, fits: bool) -> None:
    exif = b"II*\0" + bytes(size - 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_image(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8), Metadata(exif=exif))
    assert bool(caught) != fits


def test_an_image_file_over_the_limits_is_a_limit_error(tmp_path: Path) -> None:
    Image.new("RGB", (40, 50)).save(tmp_path / "a.png")
    with pytest.raises(LimitError, match=r"a\.png"):
        read_picture(tmp_path / "a.png", Limits(side=45))
