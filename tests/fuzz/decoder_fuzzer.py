"""Atheris harness of the whole decoder, with preset t: header, sections, metadata, alpha, entropy decoder, networks.

    python tests/fuzz/decoder_fuzzer.py [libFuzzer's options] FOLDER tests/fuzz/corpus/decoder

An input is a file, but for its checksums: those of header and sections are put right first, as an attacker would, and
those of chunks are not compared, so that wrong symbols reach the networks. Inputs whose last byte is odd are taken as
they are. A file must decode to what its header says, whole, in part and as preview, or be refused with a StreamError or
BundleError of one line. Anything else is a finding.
"""

from __future__ import annotations

import struct
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["condic"]):
    from condic import kernels
    from condic.errors import BundleError, StreamError
    from condic.runtime import latents
    from condic.runtime.backends import BackendOptions
    from condic.runtime.bitstream import HEADER_BYTES, SECTION_BYTES, Limits, read_header
    from condic.runtime.bundle import read_bundle
    from condic.runtime.codec import Codec

BUNDLE = Path(__file__).resolve().parents[1] / "data" / "dcic-sgp-t.condic"
LIMITS = Limits(pixels=2**15, metadata=2**16)
"""Small: what is looked for does not depend on the size, and small files are many."""
_CRC = struct.Struct("<I")

codec = Codec(read_bundle(BUNDLE), "ort", BackendOptions(threads=1))


def resealed(data: bytes) -> bytes:
    """The same with the model's id and right checksums for the header and for all sections that fit."""
    if len(data) < HEADER_BYTES:
        return data
    head = data[:8] + codec.bundle.id + data[16 : HEADER_BYTES - _CRC.size]
    parts, position = [head, _CRC.pack(kernels.crc32c(head))], HEADER_BYTES
    while len(data) - position >= SECTION_BYTES:
        (length,) = _CRC.unpack_from(data, position + 1)
        end = position + SECTION_BYTES - _CRC.size + length
        if end + _CRC.size > len(data):
            break
        parts += [data[position:end], _CRC.pack(kernels.crc32c(data[position:end]))]
        position = end + _CRC.size
    return b"".join([*parts, data[position:]])


def decodes_or_is_refused(data: bytes) -> None:
    """Raises for anything that a decoder must not do."""
    if not data or data[-1] % 2 == 0:
        data = resealed(data)
    try:
        decoded = codec.decode(data, limits=LIMITS)
    except (StreamError, BundleError) as error:
        if not str(error) or len(str(error).splitlines()) != 1:
            raise AssertionError(f"not one line: {error!r}") from error
        return
    header = read_header(data)
    if decoded.image.shape[:2] != (header.height, header.width):
        raise AssertionError(f"{decoded.image.shape} for {header}")
    part = codec.decode(data, limits=LIMITS, region=(header.width // 2, header.height // 2, 1, 1)).image
    small = codec.preview(data, limits=LIMITS, reduction=8).image
    if not (part[0, 0] == decoded.image[header.height // 2, header.width // 2]).all():
        raise AssertionError("a region differs from the whole")
    if small.shape[:2] != (-(-header.height // 8), -(-header.width // 8)):
        raise AssertionError(f"a preview of {small.shape} for {header}")


def main() -> None:
    """Fuzzes until told to stop."""
    latents.LatentSection.check = lambda *_: None  # type: ignore[method-assign]
    warnings.simplefilter("error")
    atheris.Setup(sys.argv, decodes_or_is_refused)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
