"""Damaged and hostile files of preset t: an error of condic's own, quickly, whatever was changed.

Two attacks. A mutation changes bytes as a bad disk would; the checksums must catch every one. A *resealed* mutation
also puts all CRC-32Cs right, as an attacker would, so that payloads reach the entropy coder and the networks.
"""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import ImageFile

from condic.errors import BundleError, CondicError, IntegrityError, StreamError
from condic.runtime.bitstream import (
    ALPHA,
    HEADER_BYTES,
    METADATA,
    Flags,
    Header,
    Limits,
    Section,
    read_header,
    read_stream,
    write_stream,
)
from condic.runtime.codec import Codec, Decoded
from condic.runtime.metadata import Metadata
from condic.runtime.pictures import as_picture

MUTATIONS = 5000
RESEALED = 3000
SECONDS = 5
"""Of processor time, for one file."""
SMALL = Limits(pixels=2**16)
"""Resealed headers may claim any size; only small ones are worth decoding here."""

Decode = Callable[[bytes], Decoded]


@pytest.fixture(scope="module")
def data(codec: Codec, drawing: Callable[..., np.ndarray]) -> bytes:
    """A grey file with alpha and metadata: all kinds of sections."""
    metadata = Metadata(b"profile" * 9, b"II*\0exif", b"<x/>")
    return codec.encode(replace(as_picture(drawing(50, 60, 2)), metadata=metadata), 40)


@pytest.fixture(scope="module")
def decode(codec: Codec) -> Decode:
    """Decodes with warnings as errors, and fails if it takes too long."""

    def timed(data: bytes) -> Decoded:
        start = time.process_time()  # a busy machine is no reason to fail
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return codec.decode(data, limits=SMALL)
        finally:
            assert time.process_time() - start < SECONDS

    return timed


@st.composite
def edits(draw: st.DrawFn, size: int) -> Callable[[bytes], bytes]:
    """A change to `size` bytes: overwrite, flip a bit, insert, delete, cut, or copy a part over another."""
    at, other = draw(st.integers(0, size)), draw(st.integers(0, size))
    some = draw(st.binary(min_size=1, max_size=8))
    bit = 1 << draw(st.integers(0, 7))
    kinds: list[Callable[[bytes], bytes]] = [
        lambda x: x[:at] + some + x[at + len(some) :],
        lambda x: x[:at] + bytes(b ^ bit for b in x[at : at + 1]) + x[at + 1 :],
        lambda x: x[:at] + some + x[at:],
        lambda x: x[:at] + x[at + len(some) :],
        lambda x: x[:at],
        lambda x: x[:at] + x[other : other + 16] + x[at + 16 :],
        lambda x: x[:at] + bytes(len(some)) + x[at + len(some) :],
    ]
    return draw(st.sampled_from(kinds))


def apply(changes: list[Callable[[bytes], bytes]], data: bytes) -> bytes:
    for change in changes:
        data = change(data)
    return data


@settings(max_examples=MUTATIONS)
@given(draws=st.data())
def test_every_mutated_file_is_refused(data: bytes, decode: Decode, draws: st.DataObject) -> None:
    mutated = apply(draws.draw(st.lists(edits(len(data)), min_size=1, max_size=4)), data)
    assume(mutated != data)
    with pytest.raises(CondicError):
        decode(mutated)


def test_every_change_of_one_byte_is_refused(data: bytes, decode: Decode) -> None:
    for position in range(len(data)):
        for difference in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= difference
            with pytest.raises(CondicError):
                decode(bytes(damaged))


def test_every_value_of_a_header_byte_is_refused(data: bytes, decode: Decode) -> None:
    for position in range(HEADER_BYTES):
        for value in set(range(256)) - {data[position]}:
            with pytest.raises(CondicError):
                decode(data[:position] + bytes([value]) + data[position + 1 :])


def test_a_file_cut_anywhere_is_refused(data: bytes, decode: Decode) -> None:
    for length in range(len(data)):
        with pytest.raises(StreamError):
            decode(data[:length])


@pytest.mark.parametrize("extra", [b"\0", b"CDIC", bytes(1000)])
def test_bytes_after_the_end_are_refused(data: bytes, decode: Decode, extra: bytes) -> None:
    with pytest.raises(StreamError, match="follow the last section"):
        decode(data + extra)


def test_a_file_twice_is_refused(data: bytes, decode: Decode) -> None:
    with pytest.raises(StreamError):
        decode(data + data)


def resealed(header: Header, sections: list[tuple[int, bytes]]) -> bytes:
    """A file with right checksums, whatever is in it."""
    return write_stream(replace(header, sections=len(sections)), [Section(kind, payload) for kind, payload in sections])


def parts(data: bytes) -> tuple[Header, list[tuple[int, bytes]]]:
    stream = read_stream(data)
    return stream.header, [(s.kind, bytes(s.payload)) for s in stream.sections]


def decodes_or_is_refused(decode: Decode, data: bytes) -> None:
    """A file decodes to what its header says, or a CondicError of one line says why not; all else is a failure."""
    try:
        decoded = decode(data)
    except CondicError as error:
        message = str(error)
    else:
        header, message = read_header(data), "decoded"
        assert decoded.image.shape[:2] == (header.height, header.width)
    assert len(message.splitlines()) == 1


@settings(max_examples=RESEALED)
@given(draws=st.data())
def test_a_resealed_payload_decodes_or_is_refused(data: bytes, decode: Decode, draws: st.DataObject) -> None:
    header, sections = parts(data)
    k = draws.draw(st.integers(0, 2))
    kind, payload = sections[k]
    mutated = apply(draws.draw(st.lists(edits(len(payload)), min_size=1, max_size=3)), payload)
    assume(mutated != payload)
    sections[k] = (kind, mutated)
    decodes_or_is_refused(decode, resealed(header, sections))


@settings(max_examples=RESEALED)
@given(draws=st.data())
def test_a_resealed_header_decodes_or_is_refused(data: bytes, decode: Decode, draws: st.DataObject) -> None:
    header, sections = parts(data)
    header = replace(
        header,
        width=draws.draw(st.just(header.width) | st.integers(1, 300) | st.integers(1, 2**32 - 1)),
        height=draws.draw(st.just(header.height) | st.integers(1, 300) | st.integers(1, 2**32 - 1)),
        quality=draws.draw(st.just(header.quality) | st.integers(0, 255)),
        flags=draws.draw(st.sampled_from([Flags(k) for k in range(8)])),
    )
    order = draws.draw(st.permutations(range(len(sections))))
    kinds = draws.draw(st.just([k for k, _ in sections]) | st.lists(st.integers(0, 255), min_size=5, max_size=5))
    count = draws.draw(st.just(len(sections)) | st.integers(0, len(sections)))
    shuffled = [(kinds[k], sections[k][1]) for k in order[:count]]
    decodes_or_is_refused(decode, resealed(header, shuffled))


@settings(max_examples=500)
@given(payloads=st.lists(st.binary(max_size=80), min_size=3, max_size=3), size=st.integers(1, 200))
def test_arbitrary_resealed_payloads_are_refused(data: bytes, decode: Decode, payloads: list[bytes], size: int) -> None:
    header, _ = parts(data)
    header = replace(header, width=size, height=size, flags=Flags.NONE)
    with pytest.raises(StreamError):
        decode(resealed(header, list(enumerate(payloads))))


@settings(max_examples=1000)
@given(draws=st.data())
def test_a_resealed_alpha_plane_decodes_or_is_refused(data: bytes, decode: Decode, draws: st.DataObject) -> None:
    header, sections = parts(data)
    assert sections[3][0] == ALPHA
    png = sections[3][1]
    if draws.draw(st.booleans()):
        mutated = apply(draws.draw(st.lists(edits(len(png)), min_size=1, max_size=3)), png)
    else:
        chunks = png_chunks(png)
        k = draws.draw(st.integers(0, len(chunks) - 1))
        kind = draws.draw(
            st.just(chunks[k][0]) | st.sampled_from([b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"fdAT"])
        )
        body = apply(draws.draw(st.lists(edits(len(chunks[k][1])), max_size=3)), chunks[k][1])
        chunks[k : k + draws.draw(st.integers(0, 1))] = [(kind, body)]
        mutated = png_of(chunks)
    sections[3] = (ALPHA, mutated)
    decodes_or_is_refused(decode, resealed(header, sections))


def png_chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    chunks, position = [], 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        chunks.append((kind, png[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file with right checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@settings(max_examples=1000)
@given(draws=st.data())
def test_resealed_metadata_decodes_or_is_refused(data: bytes, decode: Decode, draws: st.DataObject) -> None:
    header, sections = parts(data)
    kind, payload = sections[4]
    assert kind == METADATA
    plain = zlib.decompress(payload[4:])
    change = draws.draw(edits(len(plain)))
    sections[4] = (kind, struct.pack("<I", len(change(plain))) + zlib.compress(change(plain)))
    if draws.draw(st.booleans()):
        sections[4] = (kind, draws.draw(edits(len(payload)))(payload))
    decodes_or_is_refused(decode, resealed(header, sections))


def test_an_alpha_plane_of_another_size_is_refused(data: bytes, decode: Decode, codec: Codec) -> None:
    header, sections = parts(data)
    other = codec.encode(np.zeros((51, 60, 2), np.uint8), 0)
    sections[3] = parts(other)[1][3]
    with pytest.raises(StreamError, match="alpha plane is not one of 8-bit grey, 60x50, not interlaced"):
        decode(resealed(header, sections))


@pytest.mark.parametrize("truncated", [False, True], ids=["", "where truncated images are allowed"])
def test_an_alpha_plane_that_other_readers_of_png_refuse_or_see_differently_is_refused(
    data: bytes, decode: Decode, truncated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", truncated)
    header, sections = parts(data)
    png = sections[3][1]
    (_, head), (_, packed), end = png_chunks(png)
    rows = zlib.decompress(packed)
    assert len(rows) == 50 * 61
    grey_of_4_bits = head[:8] + b"\4" + head[9:]
    interlaced = head[:12] + b"\1"

    def with_rows(rows: bytes, head: bytes = head) -> bytes:
        return png_of([(b"IHDR", head), (b"IDAT", zlib.compress(rows)), end])

    def given(png: bytes) -> bytes:
        sections[3] = (ALPHA, png)
        return resealed(header, sections)

    decode(given(with_rows(rows)))
    decode(given(png_of([(b"IHDR", head), (b"IDAT", packed[:9]), (b"IDAT", b""), (b"IDAT", packed[9:]), end])))
    first, image = (b"IHDR", head), (b"IDAT", packed)
    for wrong in (
        with_rows(rows[:61]), with_rows(rows[:-1]), with_rows(rows + b"\0"), with_rows(b"\5" + rows[1:]),
        with_rows(rows[: 30 * 61] + b"\xff" + rows[30 * 61 + 1 :]),
        with_rows(rows[: 50 * 31], grey_of_4_bits), with_rows(rows, interlaced),
        png_of([first, (b"IDAT", packed[:-1]), end]), png_of([first, (b"IDAT", packed + b"\0"), end]),
        png_of([first, image, first, end]), png_of([image, end]), png_of([first, end]),
        png_of([first, image, end, end]),
        b"", png[:8], png[:-12], png[:-1], png + b"\0", png[:-1] + b"\0",
        png[:-17] + bytes([png[-17] ^ 1]) + png[-16:],
    ):  # fmt: skip
        with pytest.raises(StreamError, match="alpha plane"):
            decode(given(wrong))


def test_a_symbol_changed_on_purpose_fails_its_chunk_s_checksum(data: bytes, decode: Decode) -> None:
    header, sections = parts(data)
    kind, payload = sections[2]
    sections[2] = (kind, bytes([payload[0] ^ 1]) + payload[1:])
    with pytest.raises(IntegrityError, match="chunk 0 of latent main"):
        decode(resealed(header, sections))


def test_another_model_s_file_is_refused(data: bytes, decode: Decode) -> None:
    header, sections = parts(data)
    with pytest.raises(BundleError, match="made with model 0000000000000000"):
        decode(resealed(replace(header, bundle_id=bytes(8)), sections))


def test_a_file_with_one_section_too_few_or_too_many_is_refused(data: bytes, decode: Decode) -> None:
    header, sections = parts(data)
    with pytest.raises(StreamError, match="sections"):
        decode(resealed(header, [*sections, (3, b"")]))
    for k in range(len(sections)):
        with pytest.raises(StreamError, match="sections"):
            decode(resealed(header, sections[:k] + sections[k + 1 :]))


def test_a_payload_with_a_word_too_many_is_refused(codec: Codec, drawing: Callable[..., np.ndarray]) -> None:
    """No symbol is wrong: only the end of the payload says so."""
    stream, tried = read_stream(codec.encode(drawing(50, 60), 40)), 0
    for kind, chunks in ((0, 4), (1, 1), (2, 4)):
        payload = bytes(stream.section(kind).payload)
        if payload[4 * chunks] & 16:
            continue  # the values of escapes are at the end
        sections = [replace(s, payload=payload + bytes(2)) if s.kind == kind else s for s in stream.sections]
        with pytest.raises(StreamError, match="left over"):
            codec.decode(write_stream(stream.header, sections))
        tried += 1
    assert tried
