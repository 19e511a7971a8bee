"""The entropy coder: interleaved rANS with stored tables of 15-bit probabilities.

A stream is a sequence of chunks. Each symbol of a chunk comes with the index of the table that codes it. The format is
described in `rans_stream.h`; its arithmetic, which follows Duda (arXiv 1311.2540), in `rans.h`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from condic.kernels import _native

Buffer = bytes | bytearray | memoryview


class Tables:
    """Probability tables, checked once and then shared by any number of threads.

    Table t codes the symbols -radius[t]..radius[t]; a value beyond them costs the table's escape symbol and 16 bits.

    Attributes:
        cdf: uint16, read-only, as given.
        radius: int32 [S], read-only, as given.
    """

    def __init__(self, cdf: NDArray[np.uint16], radius: NDArray[np.int32]) -> None:
        """Make tables from cumulative frequencies.

        Args:
            cdf: uint16, the tables one after the other. Table t has 2 * radius[t] + 3 values, which rise strictly from
                0 to 32768: those of -radius[t]..radius[t], then the escape symbol's.
            radius: int32 [S], 0 to 16383 each, S from 1 to 256.

        Raises:
            ValueError: a table is not as described above.
            TypeError: an array has another dtype or more than one dimension.
        """
        self.cdf = cdf.copy()
        self.radius = radius.copy()
        self.cdf.flags.writeable = False
        self.radius.flags.writeable = False
        self._native = _native.Tables(self.cdf, self.radius)

    def __len__(self) -> int:
        return len(self.radius)


def encode(tables: Tables, chunks: Sequence[tuple[NDArray[np.int16], NDArray[np.uint8]]]) -> bytes:
    """Code the chunks of a stream, in order.

    Args:
        tables: what to code with.
        chunks: for each chunk, symbols (int16 [N]) and the index of each symbol's table (uint8 [N]). Any int16 is a
            valid symbol.

    Returns:
        The payload, about `information_content` in size; no byte at all for a stream without symbols.

    Raises:
        ValueError: an index names no table, or a chunk has not one index for each symbol.
        TypeError: an array is not a contiguous, aligned vector of its dtype.
    """
    return _native.encode(tables._native, chunks)


class Decoder:
    """Decodes one payload, chunk by chunk.

    A damaged payload gives wrong symbols or a ValueError, nothing worse. Once damage is found, all further calls fail.
    """

    def __init__(self, tables: Tables, payload: Buffer) -> None:
        """Copy and check the payload, which `tables` must have coded.

        Raises:
            ValueError: the payload is damaged.
        """
        self._native = _native.Decoder(tables._native, payload)

    def decode(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Decode the next chunk.

        Args:
            indexes: uint8 [N], the table of each symbol, as they were when the chunk was coded.

        Returns:
            The symbols, int16 [N].

        Raises:
            ValueError: an index names no table, or the payload is damaged or has fewer symbols.
            TypeError: `indexes` is not a contiguous vector of uint8.
        """
        return self._native.decode(indexes)

    def finish(self) -> None:
        """Check, after the last chunk, that the payload has been used up and led back to the initial state.

        Raises:
            ValueError: it has not; some symbols are missing or wrong.
        """
        self._native.finish()


def information_content(tables: Tables, symbols: NDArray[np.int16], indexes: NDArray[np.uint8]) -> float:
    """Bits that an ideal coder needs for `symbols` (int16 [N]) under the tables named by `indexes` (uint8 [N]).

    A symbol beyond its table's radius counts as the escape symbol and 16 bits more. Raises IndexError for a table that
    there is none of, ValueError for arrays of several lengths.
    """
    if symbols.shape != indexes.shape:
        raise ValueError(f"{symbols.shape} symbols and {indexes.shape} indexes")
    sizes = 2 * tables.radius.astype(np.int64) + 3
    first = (np.cumsum(sizes) - sizes)[indexes]
    radius = tables.radius.astype(np.int64)[indexes]
    escaped = np.abs(symbols.astype(np.int64)) > radius
    entry = first + np.where(escaped, 2 * radius + 1, symbols + radius)
    cdf = tables.cdf.astype(np.int64)
    frequency = cdf[entry + 1] - cdf[entry]
    return float(np.sum(15 - np.log2(frequency)) + 16 * np.count_nonzero(escaped))
