"""Images through the device's programs are those of the host, bit for bit, on a fake device that forgives nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from condic.errors import IntegrityError, StreamError
from condic.runtime.bitstream import Section, read_stream, write_stream
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.cuda import program
from condic.runtime.cuda.program import LatentSite, ProgramKey

from .conftest import Bench

Pixels = npt.NDArray[np.uint8]
Draw = Callable[..., Pixels]
GOLDEN = {
    name: facts
    for name, facts in json.loads((Path(__file__).parents[2] / "data/golden.json").read_text()).items()
    if facts["model"] == "dcic-sgp-t"
}
LATENTS, CHUNKS = 3, 9
"""Of preset t."""


def assert_same(device: Codec, host: Codec, image: Pixels, quality: int) -> None:
    """Both ways, and the previews."""
    data = host.encode(image, quality)
    assert device.encode(image, quality) == data
    got, expected = (codec.decode(data, latents=True) for codec in (device, host))
    assert np.array_equal(got.image, expected.image)
    assert got.latents_sha256() == expected.latents_sha256()
    for reduction in (1, 8):
        got, expected = (codec.preview(data, reduction=reduction) for codec in (device, host))
        assert np.array_equal(got.image, expected.image)


@pytest.mark.parametrize("photograph", ["astronaut", "coffee", "cat"])
def test_a_photograph_becomes_the_hosts_file_and_picture(
    photograph: str, codec: Codec, device_codec: Codec, photographs: dict[str, Pixels]
) -> None:
    assert_same(device_codec, codec, photographs[photograph], 40)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (129, 127, 3), (128, 256, 1), (90, 131, 2), (33, 200, 4)])
def test_any_size_and_mode_is_the_hosts(
    shape: tuple[int, ...], codec: Codec, device_codec: Codec, drawing: Draw
) -> None:
    image = drawing(*shape)
    assert_same(device_codec, codec, image[:, :, 0] if shape[2] == 1 else image, 23)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_decodes_on_the_device(name: str, device_codec: Codec, codec: Codec, data_folder: Path) -> None:
    data = (data_folder / "golden" / f"{name}.cdic").read_bytes()
    decoded = device_codec.decode(data, latents=True)
    assert decoded.latents_sha256() == GOLDEN[name]["latents_sha256"]
    assert np.array_equal(decoded.image, codec.decode(data).image)


def test_a_region_has_the_pixels_of_the_whole(device_codec: Codec, drawing: Draw) -> None:
    data = device_codec.encode(drawing(150, 140, 4), 30)
    whole = device_codec.decode(data).image
    assert np.array_equal(device_codec.decode(data, region=(20, 31, 97, 60)).image, whole[31:91, 20:117])


def test_an_image_is_waited_for_once_but_on_the_host_once_a_chunk(
    bench: Bench, device_codec: Codec, coder: str, drawing: Draw
) -> None:
    image = drawing(60, 70)
    data = device_codec.encode(image, 30)
    device_codec.decode(data)  # graphs are loaded and tested now
    counts = bench.driver.counts
    decode_waits = 1 if coder == "device" else CHUNKS + 1
    for code, waits in ((lambda: device_codec.encode(image, 30), 1), (lambda: device_codec.decode(data), decode_waits)):
        before = dict(counts)
        code()
        assert counts["synchronise"] - before["synchronise"] == waits
        assert counts["allocate"] == before["allocate"]


def test_a_chunk_is_one_launch_to_encode_and_two_to_decode(
    bench: Bench, device_codec: Codec, coder: str, drawing: Draw
) -> None:
    device_codec.decode(device_codec.encode(drawing(60, 70), 30))
    names = ("pixels_to_tensor", "encode_chunk", "chunk_indexes", "decode_chunk", "tensor_to_pixels")
    assert [bench.driver.counts[name] for name in names] == [1, CHUNKS, CHUNKS, CHUNKS, 1]
    of_coder = [bench.driver.counts[name] for name in ("rans_push", "rans_open", "rans_pop", "rans_close")]
    assert of_coder == ([LATENTS, LATENTS, CHUNKS, LATENTS] if coder == "device" else [0, 0, 0, 0])


def test_from_the_second_time_on_a_program_is_a_graph_launch(
    bench: Bench, codec: Codec, device_codec: Codec, coder: str, drawing: Draw
) -> None:
    counts, image = bench.driver.counts, drawing(40, 50)
    for k in range(4):
        assert device_codec.encode(image + np.uint8(k), 20 + k) == codec.encode(image + np.uint8(k), 20 + k)
    assert (counts["begin_capture"], counts["launch_graph"]) == (1, 3)
    for k in range(4):
        data = codec.encode(image + np.uint8(k), 9 + k)
        assert (
            device_codec.decode(data, latents=True).latents_sha256()
            == codec.decode(data, latents=True).latents_sha256()
        )
    segments = 1 if coder == "device" else CHUNKS + 1
    assert (counts["begin_capture"], counts["launch_graph"]) == (1 + segments, 3 + 3 * segments)


def test_strands_may_run_as_early_as_what_they_wait_for_allows(
    bench: Bench, codec: Codec, device_codec: Codec, photographs: dict[str, Pixels]
) -> None:
    bench.driver.hasty = True
    for quality in (20, 30, 40):  # as they are, captured, and launched again
        assert_same(device_codec, codec, photographs["coffee"], quality)


def test_what_cannot_be_captured_runs_as_it_is(
    bench: Bench, codec: Codec, device_codec: Codec, drawing: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawing(40, 50)
    bench.backend.capturable = False
    for _ in range(3):
        assert device_codec.encode(image, 20) == codec.encode(image, 20)
    assert bench.driver.counts["begin_capture"] == 0


def test_a_capture_that_fails_is_not_tried_again(
    bench: Bench, codec: Codec, device_codec: Codec, drawing: Draw
) -> None:
    image, data = drawing(40, 50), codec.encode(drawing(40, 50), 20)
    bench.driver.refuse_captures = True
    for _ in range(4):
        assert device_codec.encode(image, 20) == data
    assert (bench.driver.counts["begin_capture"], bench.driver.counts["launch_graph"]) == (1, 0)
    assert device_codec._device is not None
    (workspace,) = device_codec._device._idle
    assert [program.refusal is not None for program in workspace._programs.values()] == [True]


def broken(data: bytes) -> Iterator[bytes]:
    """The file with one byte of a section changed, whose CRC is right: at many places."""
    stream = read_stream(data)
    for kind, section in enumerate(stream.sections):
        payload = bytes(section.payload)
        for at in range(0, len(payload), max(1, len(payload) // 9)):
            changed = payload[:at] + bytes([payload[at] ^ 1 + at % 255]) + payload[at + 1 :]
            sections = [Section(s.kind, changed if s.kind == kind else s.payload) for s in stream.sections]
            yield write_stream(stream.header, sections)


def test_damaged_files_are_refused_as_on_the_host(device_codec: Codec, coder: str, codec: Codec, drawing: Draw) -> None:
    intact, failures = codec.encode(drawing(100, 140), 45), set()
    for data in broken(intact):
        errors = []
        for each in (device_codec, codec):
            with pytest.raises(StreamError) as caught:
                each.decode(data)
            errors.append(str(caught.value))
            failures.add(type(caught.value))
        if coder == "host":
            assert errors[0] == errors[1]
    assert failures == {StreamError, IntegrityError}
    assert (
        device_codec.decode(intact, latents=True).latents_sha256()
        == codec.decode(intact, latents=True).latents_sha256()
    )


def test_a_payload_with_a_word_too_many_is_refused(device_codec: Codec, codec: Codec, drawing: Draw) -> None:
    """The last symbol is right: only the end of the payload says so."""
    stream = read_stream(codec.encode(drawing(50, 60), 40))
    payload = bytes(stream.section(1).payload)
    assert not payload[4] & 16, "no escapes, whose values would be at the end"
    sections = [replace(s, payload=payload + bytes(2)) if s.kind == 1 else s for s in stream.sections]
    for each in (device_codec, codec):
        with pytest.raises(StreamError, match="left over"):
            each.decode(write_stream(stream.header, sections))


@pytest.mark.parametrize("room", [16, 1000])
def test_a_payload_beyond_the_room_for_it_is_fetched_and_decoded_by_the_host(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    image = drawing(100, 140)
    data = codec.encode(image, 60)
    assert max(len(section.payload) for section in read_stream(data).sections) > room
    monkeypatch.setattr(LatentSite, "payload_room", room)
    monkeypatch.setattr(LatentSite, "payload_fetched", room)
    device = bench.codec(bundle)
    for _ in range(3):  # plain, captured, launched
        assert device.encode(image, 60) == data
        assert device.decode(data, latents=True).latents_sha256() == codec.decode(data, latents=True).latents_sha256()
    device.close()
    assert bench.driver.left() == {}


@pytest.mark.parametrize("room", [16, 10**6])
def test_the_second_half_of_encoding_reads_nothing_of_the_image(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    images = [np.roll(drawing(60, 70), 13 * k, axis=1) for k in range(4)]
    frame = np.empty_like(images[0])

    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        for image in images:
            frame[:] = image
            yield frame

    monkeypatch.setattr(LatentSite, "payload_room", room)
    monkeypatch.setattr(LatentSite, "payload_fetched", room)
    device = bench.codec(bundle)
    assert list(device.encode_many(frames(), 50)) == [codec.encode(image, 50) for image in images]
    device.close()


def test_latents_are_fetched_by_pieces(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "PIECE", 4096)
    data = codec.encode(drawing(200, 140), 30)
    decoded, expected = bench.codec(bundle).decode(data, latents=True), codec.decode(data, latents=True)
    assert decoded.latents.keys() == expected.latents.keys()
    assert all(np.array_equal(decoded.latents[name], x) for name, x in expected.latents.items())


def test_a_profile_names_every_operation(bench: Bench, device_codec: Codec) -> None:
    assert device_codec._device is not None
    encode = ProgramKey("encode", 100, 100, 3, host_coder=True)
    names = [name for name, _ in device_codec._device.profile(encode)]
    assert names.count("encode_chunk") == CHUNKS
    assert {"analysis", "upload pixels", "pixels", "clear main.results", "download main.symbols"} <= set(names)
    before = bench.driver.left()
    device_codec._device.profile(encode)
    assert bench.driver.left() == before
