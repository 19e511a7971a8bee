"""Guarded rounding: how backends that differ in the last bits come to the same integers.

A float graph on the entropy path gives slightly different numbers elsewhere, which matters only where they are about to
be rounded near a boundary. The encoder notes each value that lies within `delta` of one, and which side it took; the
decoder obeys for these and rounds the others as they come. So both agree as long as their numbers differ by less than
`delta`, which is at most 1/4: then a decoder that differs by as much still sees which boundary was meant. Values are
counted in the order in which they are rounded, over all guarded latents of a file.

Noted values travel as a list of gaps in Golomb-Rice code, each with one bit for the side (docs/bitstream.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from condic.errors import StreamError

Codes = npt.NDArray[np.int32]
LARGEST_DELTA = 0.25
_LARGEST_CODE = 2**20
_MOST_REMAINDER_BITS = 40
_LARGEST_POSITION = 2**62
_PIECE = 2**14
_TOO_MANY = "the guard names values that the file does not have"


class Rounding(Protocol):
    """Rounds real numbers to integers, one array after the other, as the encoder did or does."""

    def round(self, values: npt.NDArray[np.floating], delta: float) -> Codes:
        """Integers of the shape of `values`; `delta`, 0..1/4, is the distance from a boundary that is guarded."""
        ...


class GuardWriter:
    """The encoder's side: rounds half up, and notes what is close."""

    def __init__(self) -> None:
        self._done = 0
        self._positions: list[npt.NDArray[np.int64]] = []
        self._sides: list[npt.NDArray[np.bool_]] = []

    def round(self, values: npt.NDArray[np.floating], delta: float) -> Codes:
        """See `Rounding`."""
        shifted, boundary, codes = _around(values)
        close = np.flatnonzero(np.abs(shifted - boundary) < delta)
        self._positions.append(close + self._done)
        self._sides.append(codes.flat[close] == boundary.flat[close])
        self._done += values.size
        return codes

    @property
    def count(self) -> int:
        """How many values were noted."""
        return sum(x.size for x in self._positions)

    def payload(self) -> bytes:
        """The list of noted values."""
        return pack(np.concatenate([*self._positions, np.zeros(0, np.int64)]).tolist(),
                    np.concatenate([*self._sides, np.zeros(0, np.bool_)]).tolist())  # fmt: skip


class GuardReader:
    """The decoder's side: rounds half up, but where the encoder's list says otherwise."""

    def __init__(self, payload: bytes | memoryview, values: int = _LARGEST_POSITION) -> None:
        """`values`: how many there are at most.

        Raises StreamError for a list of more, or what is none. The list is read as it is needed, so `round` and
        `finish` raise it too.
        """
        if count_noted(payload) > values:
            raise StreamError(_TOO_MANY)
        self._list = unpack(payload)
        self._next = next(self._list, None)
        self._done = 0

    def round(self, values: npt.NDArray[np.floating], delta: float) -> Codes:
        """See `Rounding`; `delta` is the encoder's business."""
        _, boundary, codes = _around(values)
        noted, sides = list[int](), list[bool]()
        while self._next is not None and self._next[0] < self._done + values.size:
            noted.append(self._next[0] - self._done)
            sides.append(self._next[1])
            self._next = next(self._list, None)
        codes.flat[noted] = boundary.flat[noted].astype(np.int32) - 1 + np.array(sides, np.int32)
        self._done += values.size
        return codes

    def finish(self) -> None:
        """Raises StreamError if the list goes on beyond the last value: to be called when all latents are decoded."""
        if self._next is not None:
            raise StreamError(_TOO_MANY)


def pack(positions: Sequence[int], sides: Sequence[bool]) -> bytes:
    """Rising positions and their sides (True: up) as bytes."""
    head = bytearray()
    count = len(positions)
    while count >= 128:
        head.append(count & 127 | 128)
        count >>= 7
    head.append(count)
    if not positions:
        return bytes(head)
    gaps = [b - a - 1 for a, b in zip([-1, *positions], positions, strict=False)]
    k = min(range(_MOST_REMAINDER_BITS), key=lambda k: sum((gap >> k) + k for gap in gaps))
    head.append(k)
    bits: list[str] = []
    for gap, side in zip(gaps, sides, strict=True):
        bits += ["1" * (gap >> k), "0", f"{gap & (1 << k) - 1:0{k}b}" if k else "", "1" if side else "0"]
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return bytes(head) + int(text, 2).to_bytes(len(text) // 8, "big")


def unpack(data: bytes | memoryview) -> Iterator[tuple[int, bool]]:
    """The inverse of `pack`: positions with their sides, one after the other, so that a long list takes no memory.

    Raises StreamError, where it comes to it, for what is no such list, as docs/bitstream.md has it.
    """
    count, position = _read_count(data)
    if not count:
        if len(data) != position:
            raise StreamError("the guard goes on after its end")
        return
    digits, last = _Digits(memoryview(data)[position + 1 :]), -1
    k = data[position] if position < len(data) else 0
    if position == len(data):
        raise StreamError("the guard ends early")
    if k >= _MOST_REMAINDER_BITS:
        raise StreamError(f"the guard has gaps with {k} bits; {_MOST_REMAINDER_BITS - 1} are possible")
    for _ in range(count):
        last += 1 + (digits.ones() << k) + int(digits.take(k) or b"0", 2)
        if last >= _LARGEST_POSITION:
            raise StreamError("the guard names values that no file has")
        yield last, digits.take(1) == b"1"
    if not digits.at_end():
        raise StreamError("the guard goes on after its end")


def count_noted(data: bytes | memoryview) -> int:
    """How many values a list says that it notes. Raises StreamError where it does not say so."""
    return _read_count(data)[0]


def _read_count(data: bytes | memoryview) -> tuple[int, int]:
    """The number of noted values, and of the bytes that hold it."""
    count = position = 0
    for byte in data[:9]:
        count |= (byte & 127) << 7 * position
        position += 1
        if byte < 128:
            break
    if not position or data[position - 1] >= 128 or count > 8 * len(data):
        raise StreamError("the guard is not a list")
    return count, position


class _Digits:
    """Bits of bytes, as digits 0 and 1 in ASCII: of some bytes at a time, since each becomes eight."""

    def __init__(self, data: memoryview) -> None:
        self._pieces = (data[begin : begin + _PIECE] for begin in range(0, len(data), _PIECE))
        self._text, self._at = b"", 0

    def ones(self) -> int:
        """How many ones come before the next zero, which is taken too. Raises StreamError if there is none."""
        count = 0
        while (zero := self._text.find(b"0", self._at)) < 0:
            count, self._at = count + len(self._text) - self._at, len(self._text)
            self._go_on()
        count, self._at = count + zero - self._at, zero + 1
        return count

    def take(self, count: int) -> bytes:
        """The next so many. Raises StreamError if there are fewer."""
        while len(self._text) - self._at < count:
            self._go_on()
        self._at += count
        return self._text[self._at - count : self._at]

    def at_end(self) -> bool:
        """Whether nothing is left but the zeros that fill the last byte."""
        left = self._text[self._at :]
        return next(self._pieces, None) is None and len(left) < 8 and b"1" not in left

    def _go_on(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise StreamError("the guard ends early")
        digits = (np.unpackbits(np.frombuffer(piece, np.uint8)) + ord("0")).tobytes()
        self._text, self._at = self._text[self._at :] + digits, 0


def _around(values: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Codes]:
    """Values plus 1/2, the integer nearest to each of these, and their floor: half up."""
    shifted = np.clip(values.astype(np.float64), -_LARGEST_CODE, _LARGEST_CODE) + 0.5
    return shifted, np.rint(shifted), np.floor(shifted).astype(np.int32)
