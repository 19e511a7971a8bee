"""Whatever Pillow reads becomes 8-bit grey or RGB that looks the same, or a warning says what is lost."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from condic.errors import CondicWarning, InputError
from condic.runtime.bitstream import Limits
from condic.runtime.conversion import _bits_of_box
from condic.runtime.image_files import read_picture
from condic.runtime.pictures import Picture, as_picture

Draw = Callable[..., np.ndarray]
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def same(picture: Picture, image: Image.Image) -> None:
    """The picture is the image as Pillow converts it."""
    mode = ("L" if picture.grey else "RGB") + ("" if picture.alpha is None else "A")
    assert np.array_equal(picture.array(), np.asarray(image.convert(mode)))


@pytest.mark.parametrize(
    ("mode", "grey", "alpha"),
    [
        ("1", True, False), ("L", True, False), ("LA", True, True), ("La", True, True), ("P", False, False),
        ("PA", False, True), ("RGB", False, False), ("RGBA", False, True), ("RGBa", False, True),
        ("RGBX", False, False), ("YCbCr", False, False), ("HSV", False, False), ("CMYK", False, False),
    ],
)  # fmt: skip
def test_every_8_bit_mode_is_taken(drawing: Draw, mode: str, grey: bool, alpha: bool) -> None:
    start = Image.fromarray(drawing(9, 11, 4))
    start = start.convert({"La": "LA", "PA": "P", "P": "RGB", "LA": "RGBA"}.get(mode, start.mode)).convert(mode)
    picture = as_picture(start)
    assert (picture.grey, picture.alpha is not None) == (grey, alpha)
    if mode not in ("La", "RGBa"):
        same(picture, start)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_transparency_has_alpha(drawing: Draw, kind: str) -> None:
    image = Image.fromarray(drawing(20, 20)).quantize(8)
    with Image.open(io.BytesIO(stored(image, kind, transparency=3))) as read:
        expected = np.asarray(read.convert("RGBA"))
        assert 0 < np.count_nonzero(expected[:, :, 3] == 0) < 400
    assert np.array_equal(read_picture(stored(image, kind, transparency=3)).array(), expected)


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (1, 2, 3))])
def test_a_transparent_colour_becomes_alpha(mode: str, colour: object) -> None:
    image = Image.new(mode, (4, 4), colour)
    image.putpixel((1, 1), 9 if mode == "L" else (9, 9, 9))
    picture = read_picture(stored(image, "PNG", transparency=colour))
    assert picture.alpha is not None
    assert picture.alpha.sum() == 255


@pytest.mark.parametrize("kind", ["TGA", "PIL"])
def test_a_palette_with_alpha_of_its_own_keeps_it(drawing: Draw, kind: str) -> None:
    image = Image.fromarray(drawing(20, 30, 4)).quantize(32)
    expected = np.asarray(image.convert("RGBA"))
    assert expected[:, :, 3].min() < 255
    picture = as_picture(image) if kind == "PIL" else read_picture(stored(image, kind))
    assert np.array_equal(picture.array(), expected)


def test_deep_pnm_and_sgi_files_warn() -> None:
    plain = b"P3 2 1 1023 " + b" ".join(b"%d" % (100 * k) for k in range(6))
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        read_picture(plain)
    sgi = struct.pack(">hBBHHHHii4x80si404x", 474, 0, 2, 3, 3, 2, 3, 0, 65535, b"", 0) + bytes(3 * 3 * 2 * 2)
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        read_picture(sgi)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({258: (16,), 262: 0, 277: 1}, "TIFF files of more than 8 bits whose 0 is white"),
        ({258: (32,), 262: 0, 277: 1, 339: (3,)}, "TIFF files of more than 8 bits whose 0 is white"),
        ({258: (8,), 262: 0, 277: 1, 284: 2}, "TIFF files in planes whose 0 is white"),
        ({258: (16, 16, 16), 262: 2, 277: 3, 284: 2}, "16-bit TIFF files with a plane for each colour"),
        ({258: (8,), 262: 1, 277: 1, 339: (2,)}, "TIFF files of 8-bit numbers with a sign"),
    ],
)
def test_what_pillow_misreads_is_refused(tags: dict[int, object], message: str) -> None:
    image = Image.new("L", (4, 4))
    image.tag_v2 = tags  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"^Pillow misreads {message}; convert it"):
        as_picture(image)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("key", ["first", "middle", "last"])
def test_a_transparent_grey_of_few_bits_becomes_alpha(bits: int, key: str) -> None:
    values = np.arange(2**bits, dtype=np.uint8)
    number = {"first": 0, "middle": 2**bits // 2, "last": 2**bits - 1}[key]
    digits = np.unpackbits(values[:, None], axis=1)[:, 8 - bits :]
    picture = read_picture(png_of(values[None], bits, 0, np.packbits(digits).tobytes(), struct.pack(">H", number)))
    assert picture.alpha is not None
    assert picture.rgb[0, :, 0].tolist() == (values * (255 // values.max())).tolist()
    assert np.flatnonzero(picture.alpha[0] == 0).tolist() == [number]
    assert set(picture.alpha[0].tolist()) == {0, 255}


def png_of_16_bits(values: np.ndarray, transparent: bytes = b"") -> bytes:
    """A PNG of 16 bits a sample, `transparent` being a value or colour; Pillow itself writes only grey ones."""
    channels = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_of(values, 16, channels, rows[1:], transparent)


def png_of(values: np.ndarray, bits: int, colours: int, rows: bytes, transparent: bytes) -> bytes:
    """A PNG of the height and width of `values`, whose `rows` lack the first filter."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colours, 0, 0, 0)
    rows = b"\0" + rows
    key = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_pngs_are_reduced_with_a_warning(channels: int) -> None:
    values = np.linspace(0, 65535, 8 * 9 * channels).astype(np.uint16).reshape(8, 9, channels)
    with pytest.warns(CondicWarning, match="image: more than 8 bits a sample are reduced to 8"):
        picture = read_picture(png_of_16_bits(values))
    assert (picture.alpha is not None) == (channels in (2, 4))
    assert picture.grey == (channels in (1, 2))
    colours = np.broadcast_to(values[:, :, : (channels - 1) // 2 * 2 + 1], (8, 9, 3)) / 257
    assert np.abs(picture.rgb - colours).max() <= (0.5 if channels == 1 else 1)
    if picture.alpha is not None:
        assert np.abs(picture.alpha - values[:, :, -1] / 257).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits_becomes_alpha(channels: int) -> None:
    values = np.linspace(0, 65535, 8 * 9 * channels).astype(np.uint16).reshape(8, 9, channels)
    with pytest.warns(CondicWarning) as warned:
        picture = read_picture(png_of_16_bits(values, values[3, 4].astype(">u2").tobytes()))
    said = [str(x.message) for x in warned]
    assert "more than 8 bits" in said[0]
    assert ["become transparent too" in x for x in said[1:]] == [True] * (channels == 3)
    assert picture.alpha is not None
    assert np.argwhere(picture.alpha == 0).tolist() == [[3, 4]]
    assert picture.alpha.max() == 255


@pytest.mark.parametrize(
    ("kind", "marker", "place", "value"), [("AVIF", b"pixi", 9, 10), ("JPEG2000", b"\xff\x51", 40, 15)]
)
def test_files_of_boxes_say_how_many_bits_they_have(kind: str, marker: bytes, place: int, value: int) -> None:
    """Pillow writes such files with 8 bits; the number alone is changed, and not read by Pillow."""
    if not features.check({"AVIF": "avif", "JPEG2000": "jpg_2000"}[kind]):
        pytest.skip(f"this Pillow has no {kind}")
    data = bytearray(stored(Image.new("RGB", (40, 30)), kind))
    read_picture(bytes(data))
    image = Image.open(io.BytesIO(bytes(data)))
    data[data.index(marker) + place] = value
    image.fp = io.BytesIO(bytes(data))
    assert _bits_of_box(image) == {"AVIF": 10, "JPEG2000": 16}[kind]
    image.fp.close()
    assert _bits_of_box(image) == 0


def test_deep_grey_in_jpeg_2000_keeps_its_shades() -> None:
    """Pillow scales 12 bits to 16."""
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    data = bytearray(stored(Image.fromarray(ramp), "JPEG2000", irreversible=False))
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        picture = read_picture(bytes(data))
    assert np.abs(picture.rgb[..., 0] - ramp / 257).max() <= 0.5
    place = data.index(b"\xff\x51") + 40
    assert data[place] == 15
    data[place] = 11  # a file of 12 bits, as far as Pillow is concerned
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        shades = read_picture(bytes(data)).rgb[..., 0]
    assert len(np.unique(shades)) > 100


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "PNG"])
def test_16_bit_grey_is_rounded_in_every_format(kind: str, tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 8 * 9).astype(np.uint16).reshape(8, 9)
    path = tmp_path / f"deep.{kind.lower()}"
    path.write_bytes(stored(Image.fromarray(values), kind))
    with pytest.warns(CondicWarning, match=rf"deep.{kind.lower()}: more than 8 bits"):
        picture = read_picture(path)
    assert np.array_equal(picture.array(), np.round(values / 257))


def test_12_bit_grey_has_its_own_white() -> None:
    """As cameras and microscopes write it: 4095 is white, not 65535."""
    values = np.linspace(0, 4095, 8 * 10).astype(np.uint16).reshape(8, 10)
    digits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(8, 10, 2), axis=2)[:, :, 4:]
    pixels = np.packbits(digits.reshape(8, -1), axis=1).tobytes()
    tags = {256: 10, 257: 8, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data = struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        picture = read_picture(data)
    assert np.array_equal(picture.array(), np.round(values * (255 / 4095)))


def test_a_16_bit_colour_ppm_warns() -> None:
    values = np.arange(4 * 5 * 3) * 1000
    data = b"P6 5 4 65535\n" + values.astype(">u2").tobytes()
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        picture = read_picture(data)
    assert np.abs(picture.rgb.ravel() - values / 257).max() <= 1


def test_floating_point_is_clipped_with_a_warning() -> None:
    with pytest.warns(CondicWarning, match="floating-point values are clipped"):
        picture = as_picture(Image.fromarray(np.array([[-5, 3.2, 700]], np.float32)))
    assert picture.array().tolist() == [[0, 3, 255]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_with_a_warning(drawing: Draw, kind: str) -> None:
    frames = [Image.fromarray(drawing(20, 30)), Image.new("RGB", (30, 20), "red"), Image.new("RGB", (30, 20), "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(CondicWarning, match="3 frames; only one, the first, is encoded"):
        picture = read_picture(data)
    error = np.abs(picture.rgb.astype(int) - np.asarray(frames[0])).mean()
    assert error < (12 if kind == "GIF" else 1e-9), "a palette in GIF, else lossless"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_reset(kind: str, orientation: int) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = orientation, "Camera"
    options = {"lossless": True} if kind == "WEBP" else {}
    data = stored(Image.fromarray(pixels), kind, exif=exif, **options)
    picture = read_picture(data)
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    assert np.abs(picture.rgb.astype(int) - turned).max() < 40
    carried = Image.Exif()
    carried.load(picture.metadata.exif)
    assert carried.get(ORIENTATION, 1) == 1
    assert carried[0x010F] == "Camera"


def test_a_tiff_s_exif_does_not_say_how_its_pixels_lie(drawing: Draw) -> None:
    picture = read_picture(stored(Image.fromarray(drawing(20, 30)), "TIFF", tiffinfo={0x013B: "Somebody"}))
    carried = Image.Exif()
    carried.load(picture.metadata.exif)
    assert dict(carried) == {0x013B: "Somebody"}
    assert not read_picture(stored(Image.fromarray(drawing(20, 30)), "TIFF")).metadata


def adobe_like_cmyk_profile() -> bytes:
    """A CMYK profile made of nothing but its tables: A2B0 of a simple ink model, 5 points a side."""
    import struct

    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    # Darker than Pillow's own (1 - c)(1 - k), and warmer: the two conversions must be told apart.
    rgb = (1 - grid[:, :3] * [0.7, 0.9, 1.0]) * (1 - 0.8 * grid[:, 3:])
    srgb_to_xyz = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    xyz = (rgb**2.2) @ srgb_to_xyz.T / [0.9642, 1.0, 0.8249]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    codes = np.clip(np.stack([lab[:, 0] * 655.35, (lab[:, 1] + 128) * 257, (lab[:, 2] + 128) * 257], axis=1), 0, 65535)
    identity = struct.pack(">9i", *(65536 if k % 4 == 0 else 0 for k in range(9)))
    ramp = struct.pack(">2H", 0, 65535)
    table = (
        b"mft2\0\0\0\0" + bytes([4, 3, 5, 0]) + identity + struct.pack(">HH", 2, 2) + ramp * 4
        + codes.astype(">u2").tobytes() + ramp * 3
    )  # fmt: skip
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": table, b"wtpt": white}
    offset, directory, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        directory += name + struct.pack(">II", offset + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = bytearray(128)
    struct.pack_into(">I4sI4s4s4s", head, 0, offset + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head[36:40] = b"acsp"
    struct.pack_into(">3i", head, 68, 63190, 65536, 54061)
    return bytes(head) + struct.pack(">I", len(tags)) + directory + body


def test_cmyk_is_converted_through_its_profile() -> None:
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 0], inks[1:, :, 1], inks[2:, :, 2], inks[3:, :, 3] = 200, 120, 60, 90
    image = Image.fromarray(inks, "CMYK")
    plain = read_picture(stored(image, "TIFF"))
    same(plain, image)
    profile = adobe_like_cmyk_profile()
    picture = read_picture(stored(image, "TIFF", icc_profile=profile))
    assert not picture.metadata.icc_profile, "the pixels are sRGB now"
    expected = 255 * (1 - inks[..., :3] / 255 * [0.7, 0.9, 1.0]) * (1 - 0.8 * inks[..., 3:] / 255)
    assert np.abs(picture.rgb - expected).max() < 12
    assert np.abs(plain.rgb - expected).max() > 40


def test_an_unusable_cmyk_profile_warns(drawing: Draw) -> None:
    image = Image.fromarray(drawing(8, 8, 4), "CMYK")
    with pytest.warns(CondicWarning, match="CMYK profile is unusable"):
        picture = read_picture(stored(image, "TIFF", icc_profile=b"no profile at all"))
    same(picture, image)


def test_lab_becomes_srgb() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    colours = Image.fromarray(np.array([[[200, 30, 40], [20, 120, 220], [128, 128, 128]]], np.uint8))
    converted = ImageCms.profileToProfile(colours, srgb, lab, outputMode="LAB")
    assert np.abs(as_picture(converted).rgb.astype(int) - np.asarray(colours)).max() <= 6, "8 bits of Lab"


def test_sizes_are_checked_before_pixels_are_read() -> None:
    data = stored(Image.new("L", (300, 200)), "PNG")
    with pytest.raises(InputError, match="300x200 is over the limit"):
        read_picture(data[:60], Limits(pixels=59999))


def test_metadata_over_the_limit_is_left_out_with_a_warning() -> None:
    data = stored(Image.new("L", (3, 2)), "PNG", exif=b"Exif\0\0" + bytes(5000))
    with pytest.warns(CondicWarning, match="over 4000 bytes is left out"):
        assert not as_picture(Image.open(io.BytesIO(data)), Limits(metadata=4000)).metadata


def _tiff(values: np.ndarray) -> bytes:
    """A TIFF file of one row, with the numbers as they are."""
    sample_format = {"u": 1, "i": 2}[values.dtype.kind]
    tags = [(256, values.size), (257, 1), (258, 8 * values.itemsize), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1),
            (279, values.nbytes), (339, sample_format)]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, x) for tag, x in tags)
    return b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + directory + bytes(4)


@pytest.mark.parametrize("kind", ["int16", "uint32"])
def test_a_tiff_file_of_whole_numbers_is_read_as_they_are(kind: str):
    with pytest.warns(CondicWarning, match="more than 8 bits"):
        picture = read_picture(_tiff(np.array([0, 1, 300, 32767], kind)))
    assert picture.rgb[0, :, 0].tolist() == [0, 0, 1, 127]


def test_a_tiff_file_of_numbers_that_pillow_gives_a_sign_is_refused():
    with pytest.raises(InputError, match="Pillow misreads TIFF files of 32-bit numbers of which some are beyond 2"):
        read_picture(_tiff(np.array([0, 2**31, 5, 6], "uint32")))
