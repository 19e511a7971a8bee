"""CRC-32C, the checksum of a file's sections. Imports no numpy: reading a header takes milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from condic.kernels import _native

if TYPE_CHECKING:
    from condic.kernels.coder import Buffer


def crc32c(data: Buffer, initial: int = 0) -> int:
    """CRC-32C (Castagnoli, as in RFC 3720, appendix B.4) of `data`, a contiguous buffer.

    `initial` is the CRC of what comes before: crc32c(b, crc32c(a)) == crc32c(a + b).
    """
    return _native.crc32c(data, initial)
