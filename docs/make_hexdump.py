"""Writes the worked example of docs/bitstream.md: a 16x16 image coded with preset t, byte by byte.

`python docs/make_hexdump.py` encodes the image and puts the dump between the page's markers. `example(data, bundle)`
makes the same text from a file's bytes; a test compares the page with it. The parsing here shares no code with
condic.runtime, so that the page is checked by a second reading of the format.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condic.runtime.bundle import Bundle, read_bundle

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "bitstream.md"
BUNDLE = ROOT / "tests" / "data" / "dcic-sgp-t.condic"
BEGIN, END = "<!-- made by docs/make_hexdump.py -->\n", "<!-- end -->\n"
QUALITY = 0

_WIDTH = 8
_SHOWN_SYMBOLS = 4
Row = tuple[int, bytes, str]


def image() -> npt.NDArray[np.uint8]:
    """The example: three gradients, uint8 [16, 16, 3]."""
    rows, columns = np.mgrid[:16, :16]
    return np.stack([16 * rows, 16 * columns, 8 * (rows + columns)], axis=2).astype(np.uint8)


def example(data: bytes, bundle: Bundle) -> str:
    """The text between the markers: hex dump, then the first symbols of the hyper latent decoded by hand."""
    lines = ["```text", "offset  bytes                    meaning"]
    for offset, raw, meaning in _rows(data, bundle):
        for k in range(0, len(raw), _WIDTH):
            lines.append(f"{offset + k:05x}   {raw[k : k + _WIDTH].hex(' '):24} {'' if k else meaning}".rstrip())
        if not raw:
            lines.append(f"        {meaning}")
    return "\n".join([*lines, "```", "", *_by_hand(data, bundle), ""])


def bytes_of(page: str) -> bytes:
    """The file whose dump a page shows."""
    dump = page[page.index(BEGIN) : page.index(END)]
    return b"".join(bytes.fromhex(m) for m in re.findall(r"^[0-9a-f]{5} {3}((?:[0-9a-f]{2} ?)+)", dump, re.MULTILINE))


def replaced(page: str, text: str) -> str:
    """The page with other text between its markers."""
    return page[: page.index(BEGIN) + len(BEGIN)] + text + page[page.index(END) :]


def _rows(data: bytes, bundle: Bundle) -> Iterator[Row]:
    yield 0, data[:4], 'magic "CDIC"'
    yield 4, data[4:5], f"format version {data[4]}"
    yield 5, data[5:6], f"flags {data[5]}: not grey, no alpha, no metadata"
    yield 6, data[6:7], f"quality level {data[6]}"
    yield 7, data[7:8], f"{data[7]} sections"
    yield 8, data[8:16], "first 8 bytes of the bundle id"
    yield 16, data[16:20], f"width {_u32(data, 16)}"
    yield 20, data[20:24], f"height {_u32(data, 20)}"
    yield 24, data[24:28], f"CRC-32C of bytes 00..17: {_u32(data, 24):08x}"
    at = 28
    for _ in range(data[7]):
        kind, length = struct.unpack_from("<BI", data, at)
        latent = bundle.manifest.latents[kind]
        yield at, b"", f"section of latent `{latent.name}`"
        yield at, data[at : at + 1], f"kind {kind}"
        yield at + 1, data[at + 1 : at + 5], f"length {length} (0x{length:x})"
        end = at + 5 + length
        for k in range(len(latent.chunks)):
            begin = at + 5 + 4 * k
            yield begin, data[begin : begin + 4], f"checksum of chunk {k}: {_u32(data, begin):08x}"
        yield from _payload_rows(data, at + 5 + 4 * len(latent.chunks), end)
        yield end, data[end : end + 4], f"CRC-32C of bytes {at:x}..{end - 1:x}: {_u32(data, end):08x}"
        at = end + 4
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over")


def _payload_rows(data: bytes, at: int, end: int) -> Iterator[Row]:
    lanes, escapes, first = _payload_head(data, at)
    head = f"k = {data[at] & 7}: {lanes} lane{'s' if lanes > 1 else ''}; one group; {'' if escapes else 'no '}escapes"
    yield at, data[at : at + 1], head
    if escapes:
        yield at + 1, data[at + 1 : first], f"{escapes} escaped values"
    for lane in range(lanes):
        begin = first + 4 * lane
        yield begin, data[begin : begin + 4], f"state of lane {lane}: {_u32(data, begin):08x}"
    words, values = first + 4 * lanes, end - 2 * escapes
    if words < values:
        yield words, data[words:values], f"{(values - words) // 2} words"
    if escapes:
        yield values, data[values:end], "escaped values: " + " ".join(map(str, np.frombuffer(data[values:end], "<i2")))


def _payload_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Lanes, escapes, and where the states begin; of one group, with fewer than 128 escapes."""
    flags = data[at]
    if flags & 0b1110_1000 or (flags & 16 and data[at + 1] > 127):
        raise ValueError("the example has grown too large to be shown")
    return 1 << (flags & 7), data[at + 1] if flags & 16 else 0, at + (2 if flags & 16 else 1)


@dataclass(frozen=True)
class Pop:
    """A symbol on its way out of a state: its interval, and the state after it."""

    state: int
    low: int
    high: int
    rank: int
    following: int
    word: int | None


def _pops(state: int, words: Sequence[int], cdfs: Sequence[npt.NDArray[np.int64]]) -> list[Pop]:
    """Decodes one symbol per table in `cdfs`; raises ValueError unless that ends in the initial state."""
    pops: list[Pop] = []
    unread = iter(words)
    for cdf in cdfs:
        slot = state % 2**15
        rank = int(np.searchsorted(cdf, slot, side="right")) - 1
        low, high = int(cdf[rank]), int(cdf[rank + 1])
        following = (high - low) * (state // 2**15) + slot - low
        word = next(unread) if following < 2**16 else None
        if word is not None:
            following = 2**16 * following + word
        pops.append(Pop(state, low, high, rank, following, word))
        state = following
    if state != 2**16 or next(unread, None) is not None:
        raise ValueError("decoding by hand does not end where it should")
    return pops


def _by_hand(data: bytes, bundle: Bundle) -> list[str]:
    """The first symbols of the hyper latent: one lane, one chunk, tables by channel."""
    manifest, tables = bundle.manifest, bundle.tables
    kind, latent = next((k, x) for k, x in enumerate(manifest.latents) if x.name == "hyper")
    at = 28
    for _ in range(kind):
        at += 9 + _u32(data, at + 1)
    end = at + 5 + _u32(data, at + 1)
    lanes, escapes, state_at = _payload_head(data, at + 9)
    if lanes != 1 or escapes:
        raise ValueError("the example's hyper latent is no longer one lane without escapes")

    width, height = (-(-_u32(data, k) // manifest.alignment) * manifest.alignment // latent.stride for k in (16, 20))
    mean, index = tables["first.hyper"][data[6]].astype(int).reshape(2, latent.channels)
    channels = [c for c in range(latent.channels) if index[c] >= latent.first_coded for _ in range(height * width)]
    radius = tables["radius"].astype(int)
    ends = np.cumsum(2 * radius + 3)
    cdfs = [tables["cdf"][ends[s] - 2 * radius[s] - 3 : ends[s]].astype(int) for s in index[channels]]
    words = np.frombuffer(data[state_at + 4 : end], "<u2").tolist()
    pops = _pops(_u32(data, state_at), words, cdfs)
    rows = [
        f"| {k} | {index[c]} | {p.state:08x} | {p.state % 2**15} | [{p.low}, {p.high}) | {p.rank - radius[index[c]]} | "
        f"{p.following:08x} | {'' if p.word is None else f'{p.word:04x}'} |"
        for k, (c, p) in enumerate(zip(channels[:_SHOWN_SYMBOLS], pops, strict=False))
    ]
    return [
        f"The hyper latent has {latent.channels} channels of {height}x{width} elements here and one chunk; mean and",
        "scale index come from the table `first.hyper`. Its first symbols, from the state and words above:",
        "",
        "| symbol | scale index | state x | slot x mod 2^15 | interval [c, c + f) | q | next x | word read |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"After {len(pops)} symbols all words are used and x is 00010000 again. Channel {channels[0]} has mu16 = "
        f"{mean[channels[0]]}: its",
        "decoded elements are 16 q + mu16, in units of 1/16.",
    ]


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def main() -> None:
    """Encodes the example anew and rewrites the page."""
    from condic.runtime.codec import Codec

    bundle = read_bundle(BUNDLE)
    data = Codec(bundle, "ort").encode(image(), QUALITY)
    PAGE.write_text(replaced(PAGE.read_text(), example(data, bundle)))
    print(f"{PAGE.relative_to(ROOT)}: {len(data)} bytes")


if __name__ == "__main__":
    main()
