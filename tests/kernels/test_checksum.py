from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from condic import kernels
from condic.kernels import crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_vectors_of_rfc_3720_come_out(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def crc32c_bit_by_bit(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=100), st.integers(0, 100))
def test_a_checksum_can_be_continued(data: bytes, cut: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data) == crc32c_bit_by_bit(data)


def test_only_contiguous_buffers_are_accepted() -> None:
    assert crc32c(memoryview(b"x123456789")[1:]) == 0xE3069283
    with pytest.raises(BufferError):
        crc32c(memoryview(b"123456789")[::2])
    with pytest.raises(TypeError):
        crc32c("123456789")


@pytest.mark.skipif(
    shutil.which("g++") is None or platform.machine() != "x86_64", reason="g++ is not installed, or has another target"
)
def test_the_portable_form_has_the_known_value_whole_and_in_parts(tmp_path: Path) -> None:
    """That of machines without the instruction, and of Arm (RFC 3720, B.4: the bytes 0 to 31)."""
    program = """
#include <cstdio>
#include "crc32c.h"
int main() {
  uint8_t bytes[32];
  for (int i = 0; i < 32; ++i) bytes[i] = i;
  uint32_t whole = ~condic::crc32c_portable(~0u, bytes, 32), parts = ~0u;
  for (int i = 0; i < 32; i += 11) parts = condic::crc32c_portable(parts, bytes + i, i + 11 < 32 ? 11 : 32 - i);
  std::printf("%08X %08X", whole, ~parts);
}
"""
    (tmp_path / "checksum.cpp").write_text(program)
    headers = Path(kernels.__file__).parent
    words = ["g++", "-std=c++17", f"-I{headers}", "checksum.cpp", "-o", "checksum"]
    subprocess.run(words, cwd=tmp_path, check=True)
    done = subprocess.run(["./checksum"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "46DD794E 46DD794E"
