"""The file's bytes: header and sections, without what is inside the sections."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic.errors import IntegrityError, LimitError, StreamError
from condic.kernels import crc32c
from condic.runtime.bitstream import (
    ALPHA,
    GUARD,
    HEADER_BYTES,
    METADATA,
    SECTION_BYTES,
    Flags,
    Header,
    Limits,
    Section,
    Stream,
    kinds_of,
    read_header,
    read_stream,
    write_stream,
)

MostAllocated = Callable[[int], AbstractContextManager[None]]
HEADER = Header(640, 427, 32, Flags.GREY | Flags.ALPHA, bytes.fromhex("00112233 44556677"), 2)
SECTIONS = (Section(0, b"prior"), Section(ALPHA, b""))
BYTES = bytes.fromhex(
    "43444943 01 03 20 02 0011223344556677 80020000 ab010000 bcf48ac8"  # CDIC, version, flags, quality, sections, ...
    "00 05000000 7072696f72 9d5f000c"  # kind, length, payload, CRC-32C
    "40 00000000 9b1c2372"
)

headers = st.builds(
    Header,
    st.integers(1, 65535), st.integers(1, 4096), st.integers(0, 63), st.sampled_from([Flags(k) for k in range(4)]),
    st.binary(min_size=8, max_size=8), st.just(0),
)  # fmt: skip
section_lists = st.lists(
    st.builds(Section, st.integers(0, ALPHA - 1) | st.just(GUARD), st.binary(max_size=60)), max_size=8,
    unique_by=lambda s: s.kind,
)  # fmt: skip


def sealed(head: bytes) -> bytes:
    """A header with its checksum put right."""
    return head[: HEADER_BYTES - 4] + crc32c(head[: HEADER_BYTES - 4]).to_bytes(4, "little")


def plain(stream: Stream) -> tuple[Header, list[tuple[int, bytes]]]:
    return stream.header, [(s.kind, bytes(s.payload)) for s in stream.sections]


def test_a_file_has_these_very_bytes() -> None:
    assert write_stream(HEADER, SECTIONS) == BYTES


def test_these_very_bytes_are_read() -> None:
    assert plain(read_stream(BYTES)) == (HEADER, [(0, b"prior"), (ALPHA, b"")])
    assert read_header(BYTES[:HEADER_BYTES]) == HEADER


@given(headers, section_lists)
def test_what_is_written_is_read(header: Header, sections: list[Section]) -> None:
    sections = sections + [Section(kind, b"what its flag calls for") for kind in kinds_of(header.flags)]
    header = replace(header, sections=len(sections))
    data = write_stream(header, sections)
    assert len(data) == HEADER_BYTES + sum(SECTION_BYTES + len(s.payload) for s in sections)
    assert plain(read_stream(data)) == (header, [(s.kind, s.payload) for s in sections])
    assert plain(read_stream(memoryview(data))) == plain(read_stream(data))


@pytest.mark.parametrize("kinds", [(), (METADATA,), (ALPHA, METADATA), (ALPHA, 66), (ALPHA, 255)])
def test_sections_beside_latents_are_those_that_the_flags_call_for(kinds: tuple[int, ...]) -> None:
    sections = [Section(kind, b"x") for kind in (0, GUARD, ALPHA)]
    read_stream(write_stream(replace(HEADER, sections=3), sections))
    sections = [Section(kind, b"x") for kind in (0, *kinds)]
    with pytest.raises(StreamError, match="does not have the sections that its header calls for, and these alone"):
        read_stream(write_stream(replace(HEADER, sections=len(sections)), sections))


@given(st.integers(0, len(BYTES) - 1), st.integers(1, 255))
def test_every_byte_is_under_a_check(position: int, difference: int) -> None:
    damaged = bytearray(BYTES)
    damaged[position] ^= difference
    with pytest.raises(StreamError):
        read_stream(damaged)


@pytest.mark.parametrize("length", range(len(BYTES)))
def test_a_file_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(StreamError):
        read_stream(BYTES[:length])


@given(st.binary(min_size=1, max_size=50))
def test_bytes_after_the_end_are_refused(extra: bytes) -> None:
    with pytest.raises(StreamError, match=f"{len(extra)} bytes follow the last section"):
        read_stream(BYTES + extra)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        read_stream(data)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_after_a_good_header_are_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        read_stream(BYTES[:HEADER_BYTES] + data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"CDIC", "4 bytes, shorter than a header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a condic file: it starts with 89 50 4e 47"),
        (b"Once upon a time, in a file far away", "not a condic file: it starts with 4f 6e 63 65"),
        (BYTES[:4] + b"\x00" + BYTES[5:], "file of version 0"),
        (BYTES[:20] + b"\x00" + BYTES[21:], "the header is damaged"),
    ],
    ids=["empty", "short", "png", "text", "version", "header"],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        read_stream(data)


@pytest.mark.parametrize(
    ("position", "value"),
    [(5, "08"), (5, "80"), (6, "40"), (6, "ff"), (16, "00000000"), (20, "00000000")],
    ids=["flag-8", "flag-80", "quality-64", "quality-255", "width-0", "height-0"],
)
def test_an_impossible_header_is_refused_though_its_checksum_is_right(position: int, value: str) -> None:
    head = bytearray(BYTES[:HEADER_BYTES])
    head[position : position + len(value) // 2] = bytes.fromhex(value)
    with pytest.raises(StreamError, match="impossible header"):
        read_stream(sealed(bytes(head)) + BYTES[HEADER_BYTES:])


@pytest.mark.parametrize(
    ("width", "height"),
    [(65535, 65535), (65536, 1), (1, 65536), (2**32 - 1, 1), (1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (16385, 16384)],
)
def test_a_claimed_size_over_the_limits_is_refused_before_anything_is_allocated(
    at_most_allocated: MostAllocated, width: int, height: int
) -> None:
    data = write_stream(replace(HEADER, width=width, height=height), SECTIONS)
    wanted = f"{width}x{height} is over the limit of [0-9]+ pixels"
    with at_most_allocated(10_000), pytest.raises(StreamError, match=wanted):
        read_stream(data)


def test_a_size_at_the_limits_is_accepted() -> None:
    for width, height in ((16384, 16384), (65535, 4096), (1, 65535)):
        header = replace(HEADER, width=width, height=height)
        assert read_header(write_stream(header, SECTIONS)) == header


def test_limits_can_be_lowered_and_raised() -> None:
    data = write_stream(replace(HEADER, width=70000, height=1), SECTIONS)
    assert read_header(data, Limits(side=70000)).width == 70000
    with pytest.raises(StreamError, match="639 pixels"):
        read_header(write_stream(replace(HEADER, width=640, height=1), SECTIONS), Limits(pixels=639))


def test_an_option_is_named_only_where_it_helps() -> None:
    with pytest.raises(LimitError, match=r"11x10 is over the limit of 109 pixels; .*--max-pixels"):
        Limits(pixels=109).check(11, 10)
    with pytest.raises(LimitError, match=r"11x10 is over the limit of 10 pixels a side$"):
        Limits(side=10).check(11, 10)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 6, 1000])
def test_a_section_longer_than_the_file_is_refused_before_anything_is_allocated(
    at_most_allocated: MostAllocated, length: int
) -> None:
    data = bytearray(BYTES)
    data[HEADER_BYTES + 1 : HEADER_BYTES + 5] = length.to_bytes(4, "little")
    with at_most_allocated(10_000), pytest.raises(StreamError):
        read_stream(data)


def test_a_header_that_counts_fewer_or_more_sections_is_refused() -> None:
    with pytest.raises(StreamError, match="bytes follow the last section"):
        read_stream(write_stream(replace(HEADER, sections=1), SECTIONS))
    with pytest.raises(StreamError, match="the file ends before section 3 of 3"):
        read_stream(write_stream(replace(HEADER, sections=3), SECTIONS))


def test_a_section_that_appears_twice_is_refused() -> None:
    with pytest.raises(StreamError, match="section kind 0 appears twice"):
        read_stream(write_stream(HEADER, (Section(0, b"a"), Section(0, b"b"))))


def test_a_section_that_is_missing_is_named() -> None:
    stream = read_stream(BYTES)
    assert bytes(stream.section(0).payload) == b"prior"
    with pytest.raises(StreamError, match="no section of kind 1"):
        stream.section(1)


def test_a_damaged_section_is_an_integrity_error() -> None:
    damaged = bytearray(BYTES)
    damaged[HEADER_BYTES + 6] ^= 1
    with pytest.raises(IntegrityError, match="section 1 of 2 is damaged"):
        read_stream(damaged)
