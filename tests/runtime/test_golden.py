"""Golden files of the small models: what was once written must decode to the same integers on every backend."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from condic.runtime.bitstream import GUARD, read_stream
from condic.runtime.codec import Codec
from condic.runtime.guard import unpack
from condic.runtime.metadata import Metadata

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Golden:
    """A file, its model, and what it must decode to."""

    data: bytes
    model: str
    shape: tuple[int, ...]
    quality: int
    latents_sha256: str


def golden_files() -> dict[str, Golden]:
    facts = json.loads((DATA / "golden.json").read_text())
    return {
        name: Golden(
            (DATA / "golden" / f"{name}.cdic").read_bytes(),
            x["model"],
            tuple(x["shape"]),
            x["quality"],
            x["latents_sha256"],
        )
        for name, x in facts.items()
    }


GOLDEN = golden_files()
IDS = {"dcic-sgp-t": "80803a3f85d83c55", "cic-sr-t": "b7fa795ce4f70d85"}


def test_every_golden_file_is_tested() -> None:
    assert {path.stem for path in (DATA / "golden").iterdir()} == set(GOLDEN)
    assert len(GOLDEN) >= 13


@pytest.mark.parametrize("setting", ["torch", "ort-1-thread", "ort-2-threads", "ort-as-written", "openvino"])
@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_decodes_to_its_latents(
    name: str, setting: str, open_setting: Callable[[str, str], Codec]
) -> None:
    golden = GOLDEN[name]
    decoded = open_setting(golden.model, setting).decode(golden.data, latents=True)
    assert decoded.latents_sha256() == golden.latents_sha256
    assert decoded.image.shape == golden.shape


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_says_what_it_is(name: str) -> None:
    golden = GOLDEN[name]
    header = read_stream(golden.data).header
    assert (header.height, header.width, header.quality) == (*golden.shape[:2], golden.quality)
    assert header.bundle_id.hex() == IDS[golden.model]


def test_the_guarded_file_notes_many_values_of_each_kind() -> None:
    stream = read_stream(GOLDEN["guarded"].data)
    sides = [up for _, up in unpack(stream.section(GUARD).payload)]
    assert len(sides) > 100
    assert 20 < sum(sides) < len(sides) - 20


def test_golden_metadata_is_read(codec: Codec) -> None:
    assert codec.decode(GOLDEN["metadata"].data).metadata == Metadata(b"a profile", b"II*\0 and on", b"<x/>")


def test_golden_files_reach_every_part_of_the_coder() -> None:
    """First byte of the coder's payload: lanes, several groups, escapes."""
    first = {
        name: [bytes(s.payload)[16] for s in read_stream(golden.data).sections if s.kind in (0, 2)]
        for name, golden in GOLDEN.items() if golden.model == "dcic-sgp-t"
    }  # fmt: skip
    assert any(byte & 7 == 0 for byte in itertools.chain(*first.values()))
    assert any(byte & 7 > 1 for byte in first["several-lanes"])
    assert any(byte & 8 for byte in first["several-groups"])
    assert all(byte & 16 for byte in first["saturated"])
