"""The metadata section: its bytes, its limits, and the orientation of what is carried."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from condic.errors import StreamError
from condic.runtime.bitstream import Limits
from condic.runtime.metadata import Metadata, bare_exif, pack_metadata, unpack_metadata


def payload(plain: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(plain) if length is None else length) + zlib.compress(plain)


def item(kind: int, value: bytes) -> bytes:
    return struct.pack("<BI", kind, len(value)) + value


@given(icc_profile=st.binary(), exif=st.binary(), xmp=st.binary())
def test_metadata_comes_back_byte_for_byte(icc_profile: bytes, exif: bytes, xmp: bytes) -> None:
    metadata = Metadata(icc_profile, exif, xmp)
    if metadata:
        assert unpack_metadata(pack_metadata(metadata)) == metadata


def test_the_bytes_are_those_of_the_format_page() -> None:
    packed = pack_metadata(Metadata(b"profile", b"", b"<x/>"))
    plain = bytes.fromhex("00 07000000") + b"profile" + bytes.fromhex("02 04000000") + b"<x/>"
    assert packed[:4] == bytes.fromhex("15000000")
    assert len(plain) == 0x15 + 0 == 21
    assert zlib.decompress(packed[4:]) == plain


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"), (b"\1\0\0", "too short"), (struct.pack("<I", 5) + b"no zlib", "not decompressible"),
        (payload(b""), "empty"), (payload(item(0, b"x"), length=5), "not the 5 bytes"),
        (payload(item(0, b"x"), length=7), "not the 7 bytes"), (payload(item(0, b"x"))[:-1], "not the 6 bytes"),
        (payload(item(0, b"x")) + b"\0", "not the 6 bytes"), (payload(item(0, b"")), "kind 0 with 0 bytes"),
        (payload(item(3, b"x")), "kind 3"), (payload(item(0, b"x") * 2), "kind 0"),
        (payload(item(1, b"x") + item(0, b"x")), "kind 0"), (payload(item(0, b"x")[:4]), "cut off"),
        (payload(item(0, b"xy")[:-1]), "kind 0 with 2 bytes"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        unpack_metadata(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        unpack_metadata(data)


@given(st.binary(max_size=60))
def test_arbitrary_items_are_read_or_refused(plain: bytes) -> None:
    try:
        metadata = unpack_metadata(payload(plain))
    except StreamError:
        return
    assert unpack_metadata(pack_metadata(metadata)) == metadata


def test_a_stated_length_over_the_limit_is_refused_before_decompression() -> None:
    with pytest.raises(StreamError, match="4294967295 bytes are over the limit of 16777216"):
        unpack_metadata(b"\xff\xff\xff\xff" + b"never looked at")
    with pytest.raises(StreamError, match="over the limit of 8"):
        unpack_metadata(pack_metadata(Metadata(exif=b"four")), Limits(metadata=8))
    assert unpack_metadata(pack_metadata(Metadata(exif=b"four")), Limits(metadata=9)).exif == b"four"


def test_a_bomb_stops_at_the_length_that_it_states() -> None:
    import tracemalloc

    bomb = struct.pack("<I", 1000) + zlib.compress(bytes(2**26), 9)
    tracemalloc.start()
    with pytest.raises(StreamError, match="not the 1000 bytes"):
        unpack_metadata(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_becomes_upright_and_nothing_else_changes(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "Camera", orientation, "Somebody"
    before = bare_exif(exif.tobytes())
    after = Metadata(exif=before).upright().exif
    assert sum(a != b for a, b in zip(before, after, strict=True)) == (orientation != 1)
    read = Image.Exif()
    read.load(after)
    assert dict(read) == {0x010F: "Camera", 0x0112: 1, 0x8298: "Somebody"}


def test_big_endian_exif_becomes_upright_too() -> None:
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    assert Metadata(exif=exif).upright().exif == exif.replace(b"\0\x06\0\0", b"\0\x01\0\0")


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda x: b"II*\0" + x))
def test_broken_exif_keeps_its_length(exif: bytes) -> None:
    assert len(Metadata(exif=exif).upright().exif) == len(exif)


@pytest.mark.parametrize(
    "xmp", [b'<rdf tiff:Orientation="6" a="6"/>', b"<tiff:Orientation>8</tiff:Orientation>", b"tiff:Orientation = '3'"]
)
def test_the_orientation_in_xmp_becomes_upright(xmp: bytes) -> None:
    upright = Metadata(xmp=xmp).upright().xmp
    assert len(upright) == len(xmp)
    assert next(b for a, b in zip(xmp, upright, strict=True) if a != b) == ord("1")
    assert Metadata(xmp=upright).upright().xmp == upright


@pytest.mark.parametrize(("kind", "letter"), [(1, "B"), (3, "H"), (4, "I")])
def test_an_orientation_of_any_integer_type_becomes_upright(kind: int, letter: str) -> None:
    def exif(orientation: int) -> bytes:
        value = struct.pack(f"<{letter}", orientation).ljust(4, b"\0")
        return b"II*\0" + struct.pack("<IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)

    assert Metadata(exif=exif(6)).upright().exif == exif(1)
