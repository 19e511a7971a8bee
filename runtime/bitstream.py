"""The file: a header and sections, every byte under a CRC-32C (docs/bitstream.md gives the bytes).

Pure functions between bytes and dataclasses. Nothing here allocates more than the file's own length, and the header
is checked against limits before anyone looks at what follows it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntFlag

from condic.errors import InputError, IntegrityError, LimitError, StreamError, is_whole
from condic.kernels import crc32c

MAGIC = b"CDIC"
VERSION = 1
_HEADER = struct.Struct("<4sBBBB8sII")
_CRC = struct.Struct("<I")
_SECTION = struct.Struct("<BI")
HEADER_BYTES = _HEADER.size + _CRC.size
SECTION_BYTES = _SECTION.size + _CRC.size
ALPHA = 64
METADATA = 65
GUARD = 72
"""Which side values took that lie near a rounding boundary, for all guarded latents (`condic.runtime.guard`)."""


class Flags(IntFlag):
    """What the decoded image is, or has, besides RGB."""

    NONE = 0
    GREY = 1
    ALPHA = 2
    METADATA = 4


@dataclass(frozen=True)
class Limits:
    """The most that is accepted: pixels of an image, pixels a side, and bytes of metadata."""

    pixels: int = 2**28
    side: int = 65535
    metadata: int = 2**24

    def __post_init__(self) -> None:
        """Raises InputError for what is no number of anything."""
        for name, value in asdict(self).items():
            if not is_whole(value) or value < 1:
                raise InputError(f"limit of {name} {value!r}: give an integer from 1")

    def check(self, width: int, height: int) -> None:
        """Raises LimitError if an image of this size is over the limits."""
        if max(width, height) > self.side:
            raise LimitError(f"image of {width}x{height} is over the limit of {self.side} pixels a side")
        if width * height > self.pixels:
            raise LimitError(
                f"image of {width}x{height} is over the limit of {self.pixels} pixels; "
                "raise it to accept it (--max-pixels)"
            )


@dataclass(frozen=True)
class Header:
    """What the first 28 bytes say. `sections` counts the sections that follow."""

    width: int
    height: int
    quality: int
    flags: Flags
    bundle_id: bytes
    sections: int


@dataclass(frozen=True)
class Section:
    """A part of the file; `payload` is a view of it."""

    kind: int
    payload: bytes | memoryview


@dataclass(frozen=True)
class Stream:
    """A parsed file."""

    header: Header
    sections: tuple[Section, ...]

    def section(self, kind: int) -> Section:
        """The section of a kind, or StreamError."""
        for section in self.sections:
            if section.kind == kind:
                return section
        raise StreamError(f"the file has no section of kind {kind}; it is incomplete")


def write_stream(header: Header, sections: Sequence[Section]) -> bytes:
    """The bytes of a file; `header.sections` must be the number of sections."""
    head = _HEADER.pack(
        MAGIC, VERSION, header.flags, header.quality, header.sections, header.bundle_id, header.width, header.height
    )
    parts = [head, _CRC.pack(crc32c(head))]
    for section in sections:
        body = _SECTION.pack(section.kind, len(section.payload)) + section.payload
        parts += [body, _CRC.pack(crc32c(body))]
    return b"".join(parts)


def read_header(data: bytes | memoryview, limits: Limits | None = None) -> Header:
    """Header of a file, checked: magic, version, checksum, values, limits. Raises StreamError."""
    if len(data) < HEADER_BYTES:
        if not len(data):
            raise StreamError("the file is empty")
        raise StreamError(f"not a condic file: {len(data)} bytes, shorter than a header ({HEADER_BYTES})")
    magic, version, flags, quality, sections, bundle_id, width, height = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StreamError(f"not a condic file: it starts with {bytes(magic).hex(' ')}, not {MAGIC.hex(' ')} (CDIC)")
    if version != VERSION:
        raise StreamError(f"file of version {version}; this condic reads version {VERSION}")
    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32c(data[: _HEADER.size]):
        raise IntegrityError("the header is damaged (CRC-32C mismatch); get the file again")
    if not (width and height) or quality > 63 or flags > (Flags.GREY | Flags.ALPHA | Flags.METADATA):
        raise StreamError(f"impossible header: {width}x{height}, quality {quality}, flags {flags}")
    (limits or Limits()).check(width, height)
    return Header(width, height, quality, Flags(flags), bundle_id, sections)


def read_stream(data: bytes | memoryview, limits: Limits | None = None) -> Stream:
    """Header and sections of a whole file, with every checksum checked. Raises StreamError."""
    header = read_header(data, limits)
    view, position = memoryview(data), HEADER_BYTES
    sections: list[Section] = []
    for number in range(header.sections):
        if len(view) - position < SECTION_BYTES:
            raise StreamError(f"truncated: the file ends before section {number + 1} of {header.sections}")
        kind, length = _SECTION.unpack_from(view, position)
        end = position + _SECTION.size + length
        if length > len(view) - position - SECTION_BYTES:
            raise StreamError(
                f"truncated: section {number + 1} of {header.sections} has {length} bytes, the file ends early"
            )
        if _CRC.unpack_from(view, end)[0] != crc32c(view[position:end]):
            raise IntegrityError(
                f"section {number + 1} of {header.sections} is damaged (CRC-32C mismatch); get the file again"
            )
        if any(kind == s.kind for s in sections):
            raise StreamError(f"section kind {kind} appears twice")
        sections.append(Section(kind, view[position + _SECTION.size : end]))
        position = end + _CRC.size
    if position != len(view):
        raise StreamError(f"{len(view) - position} bytes follow the last section")
    beside_latents = {x.kind for x in sections if x.kind >= ALPHA} - {GUARD}
    if beside_latents != kinds_of(header.flags):
        raise StreamError("the file does not have the sections that its header calls for, and these alone")
    return Stream(header, tuple(sections))


def kinds_of(flags: Flags) -> set[int]:
    """Kinds of the sections, besides latents and their guard, that a header's flags call for."""
    return {kind for flag, kind in ((Flags.ALPHA, ALPHA), (Flags.METADATA, METADATA)) if flags & flag}
