"""Guarded rounding: how backends that differ in the last bits come to the same integers.

A float graph on the entropy path gives slightly different numbers elsewhere, which matters only where they are about to
be rounded near a boundary. The encoder notes each value that lies within `delta` of one, and which side it took; the
decoder obeys for these and rounds the others as they come. So both agree as long as their numbers differ by less than
`delta`. Values are counted in the order in which they are rounded, over all guarded latents of a file.

Noted values travel as a list of gaps in Golomb-Rice code, each with one bit for the side (docs/bitstream.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from condic.errors import StreamError

Codes = npt.NDArray[np.int32]
_LARGEST_CODE = 2**20
_MOST_REMAINDER_BITS = 40
_LARGEST_POSITION = 2**62
_ONE = ord("1")


class Rounding(Protocol):
    """Rounds real numbers to integers, one array after the other, as the encoder did or does."""

    def round(self, values: npt.NDArray[np.floating], delta: float) -> Codes:
        """Integers of the shape of `values`; `delta`, 0..1/2, is the distance from a boundary that is guarded."""
        ...


class Encoding:
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


class Decoding:
    """The decoder's side: rounds half up, but where the encoder's list says otherwise."""

    def __init__(self, payload: bytes | memoryview) -> None:
        """Raises StreamError for what is no list; so do the others, since the list is read as it is needed."""
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
            raise StreamError("the guard names values that the file does not have")


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

    Raises StreamError, where it comes to it, for anything that `pack` does not give.
    """
    data = bytes(data)
    count = position = 0
    for byte in data:
        count |= (byte & 127) << 7 * position
        position += 1
        if byte < 128 or position == 9:
            break
    if not data or data[position - 1] >= 128 or count > 8 * len(data):
        raise StreamError("the guard is not a list")
    if not count:
        if len(data) != position:
            raise StreamError("the guard goes on after its end")
        return
    k = data[position] if position < len(data) else _MOST_REMAINDER_BITS
    text = (np.unpackbits(np.frombuffer(data[position + 1 :], np.uint8)) + ord("0")).tobytes()
    at, last = 0, -1
    for _ in range(count):
        zero = text.find(b"0", at)
        end = zero + 1 + k
        if k >= _MOST_REMAINDER_BITS or zero < 0 or end >= len(text):
            raise StreamError("the guard ends early")
        last += 1 + (zero - at << k) + int(text[zero + 1 : end] or b"0", 2)
        if last >= _LARGEST_POSITION:
            raise StreamError("the guard names values that no file has")
        yield last, text[end] == _ONE
        at = end + 1
    if len(text) - at > 7 or b"1" in text[at:]:
        raise StreamError("the guard goes on after its end")


def _around(values: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Codes]:
    """Values plus 1/2, the integer nearest to each of these, and their floor: half up."""
    shifted = np.clip(values.astype(np.float64), -_LARGEST_CODE, _LARGEST_CODE) + 0.5
    return shifted, np.rint(shifted), np.floor(shifted).astype(np.int32)
