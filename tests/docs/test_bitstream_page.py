"""docs/bitstream.md shows a real file, and describes it as it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from condic.runtime.bitstream import read_stream
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hexdump() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_hexdump", ROOT / "docs" / "make_hexdump.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(hexdump: ModuleType) -> str:
    return hexdump.PAGE.read_text()


@pytest.fixture(scope="module")
def data(hexdump: ModuleType, page: str) -> bytes:
    return hexdump.bytes_of(page)


def test_what_the_page_says_about_its_bytes_is_what_the_script_reads_from_them(hexdump, page, data, bundle: Bundle):
    assert hexdump.replaced(page, hexdump.example(data, bundle)) == page, "run `make hexdump`"


def test_the_page_s_bytes_are_a_file_that_decodes(data: bytes, codec: Codec, hexdump: ModuleType):
    header = read_stream(data).header
    assert (header.width, header.height, header.quality) == (16, 16, hexdump.QUALITY)
    assert codec.decode(data).image.shape == (16, 16, 3)


def test_encoding_the_page_s_image_gives_a_file_of_the_same_kind(data: bytes, codec: Codec, hexdump: ModuleType):
    # Not the same bytes: analysis is float, and its rounding may differ between machines.
    encoded = codec.encode(hexdump.image(), hexdump.QUALITY)
    assert abs(len(encoded) - len(data)) <= 16
    assert np.abs(codec.decode(encoded).image.astype(int) - codec.decode(data).image).mean() < 2


def test_a_changed_byte_changes_the_page(data: bytes, hexdump: ModuleType, bundle: Bundle):
    damaged = bytes([*data[:16], data[16] ^ 1, *data[17:]])
    assert hexdump.example(damaged, bundle) != hexdump.example(data, bundle)
