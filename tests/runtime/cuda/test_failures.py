"""What a GPU refuses: memory, sizes, everything. Nothing is left behind, and the way out is named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from time import sleep
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fake_driver import MisuseError

from condic.errors import BackendError, DeviceLostError, DeviceMemoryError, SizeError
from condic.runtime import backends
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.cuda.build import build_program
from condic.runtime.cuda.driver import open_driver
from condic.runtime.cuda.graph import _MOST_SIZES
from condic.runtime.cuda.pipeline import WORKSPACES
from condic.runtime.cuda.program import ProgramKey, Rows
from condic.runtime.cuda.tiling import reach
from condic.runtime.cuda.workspace import _MOST_PROGRAMS
from condic.runtime.known_answer import check_known_answer

from .conftest import Bench

Draw = Callable[..., npt.NDArray[np.uint8]]
STREAMS = 6
"""Of a program of preset t, at most."""


def test_an_image_that_no_graph_takes_runs_by_tiles(bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw) -> None:
    image = drawing(130, 1500)
    bench.backend.largest = 1152  # 128 and what is around it
    device = bench.codec(bundle)
    data = device.encode(image, 20)
    assert bench.driver.counts["pixels_to_tensor"] == 0
    decoded = device.decode(data, latents=True)
    assert decoded.latents_sha256() == codec.decode(data, latents=True).latents_sha256()
    assert np.abs(decoded.image.astype(int) - codec.decode(data).image).max() <= 1
    device.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_where_not_even_a_tile_is_taken_the_error_says_what_to_build(
    bench: Bench, bundle: Bundle, drawing: Draw
) -> None:
    bench.backend.largest = 512
    with pytest.raises(SizeError, match=r"1536x256 cannot run whole, nor by .*896x256 in all: no engine of"):
        bench.codec(bundle).encode(drawing(130, 1500), 20)


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_an_image_of_more_pixels_than_kernels_count_is_refused_before_anything_is_made(
    bundle: Bundle, kind: str
) -> None:
    size = ProgramKey(kind, 2**14 + 1, 2**14, 3, host_coder=True)
    with pytest.raises(SizeError, match="16384x16512 pixels are more than the kernels count"):
        build_program(bundle.manifest, Rows.of(bundle.tables), None, pytest.fail, size)


def test_no_graph_runs_beyond_the_reach_of_a_tile(bundle: Bundle, drawing: Draw) -> None:
    codec, manifest = Codec(bundle, "ort", tile=128), bundle.manifest
    widths = {"encode": 0, "decode": 0}
    run = codec.graphs.run

    def noting(kind: str) -> Callable[..., object]:
        def noted(role: str, inputs: Sequence[npt.NDArray[np.float32]]) -> object:
            pairs = zip(manifest.graph(role).inputs, inputs, strict=True)
            widths[kind] = max(widths[kind], *(x.shape[3] * spec.stride for spec, x in pairs))
            return run(role, inputs)

        return noted

    codec.graphs.run = noting("encode")  # type: ignore[method-assign, assignment]
    data = codec.encode(drawing(100, 9 * 128), 20)
    codec.graphs.run = noting("decode")  # type: ignore[method-assign, assignment]
    codec.decode(data)
    assert widths == {kind: 128 + 2 * 128 * reach(manifest, getattr(manifest, kind)) for kind in widths}


def test_an_image_too_large_for_the_memory_runs_by_tiles(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw
) -> None:
    image = drawing(700, 1500)
    small = drawing(60, 60)
    device = bench.codec(bundle)
    device.encode(small, 20)
    bench.driver.resize(2**24)
    data = device.encode(image, 20)
    assert device.decode(data, latents=True).latents_sha256() == codec.decode(data, latents=True).latents_sha256()
    assert device.encode(small, 20) == codec.encode(small, 20), "the device goes on"
    device.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_without_memory_for_anything_the_error_names_the_cpu(bench: Bench, bundle: Bundle, drawing: Draw) -> None:
    device = bench.codec(bundle)
    data = device.encode(drawing(60, 70), 20)
    bench.driver.resize(2**16)
    for code in (lambda: device.encode(drawing(60, 200), 20), lambda: device.decode(data)):
        with pytest.raises(DeviceMemoryError, match=r"^the GPU has no room.*--backend ort"):
            code()
    device.close()
    assert bench.driver.left() == {}


def test_what_idle_workspaces_hold_is_given_to_an_image_that_needs_it(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw
) -> None:
    device, first = bench.codec(bundle), drawing(500, 500)
    begun = [device.begin_encoding(first, 20) for _ in range(2)]
    held = bench.driver.left()["bytes"]
    assert begun[0]() == begun[1]() == codec.encode(first, 20)
    bench.driver.resize(held + 1000)
    large = drawing(700, 600)
    assert device.encode(large, 20) == codec.encode(large, 20)
    assert bench.driver.counts["encode_chunk"] == 9 * 3, "not by tiles"
    device.close()
    assert bench.driver.left() == {}


@pytest.mark.parametrize("where", ["launch", "synchronise", "upload", "allocate", "enqueue", "create_stream"])
def test_a_device_that_is_lost_is_one_clear_error(bench: Bench, bundle: Bundle, drawing: Draw, where: str) -> None:
    image, device = drawing(60, 70), bench.codec(bundle)
    bench.driver.lose(where)
    with pytest.raises(BackendError, match=rf"^[^\n]*the GPU was lost.*{where}.*--backend ort[^\n]*$"):
        device.encode(image, 20)
    with pytest.raises(BackendError, match="the GPU was lost"):
        device.encode(image, 20)


def test_a_device_that_is_lost_midway_keeps_no_workspace(bench: Bench, bundle: Bundle, drawing: Draw) -> None:
    image, device = drawing(60, 70), bench.codec(bundle)
    data = device.encode(image, 20)
    before = bench.driver.left()
    bench.driver.lose("synchronise")
    for code in (lambda: device.encode(image, 20), lambda: device.decode(data)):
        with pytest.raises(DeviceLostError):
            code()
    bench.driver.fail = lambda name: None  # a driver that recovers would find nothing held
    assert bench.driver.left().get("bytes", 0) <= before["bytes"]
    assert device.encode(image, 20) == data


def test_threads_share_a_codec_each_image_on_a_stream_of_its_own(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw
) -> None:
    device, results = bench.codec(bundle), {}
    images = [drawing(40 + 10 * k, 60) for k in range(6)]

    def code(k: int) -> None:
        data = device.encode(images[k], 20 + k)
        results[k] = data, device.decode(data).image

    threads = [threading.Thread(target=code, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, image in enumerate(images):
        data = codec.encode(image, 20 + k)
        assert results[k][0] == data
        assert np.array_equal(results[k][1], codec.decode(data).image)
    assert bench.driver.left()["streams"] <= 4 * STREAMS + len(bundle.manifest.graphs)
    device.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


@pytest.mark.parametrize("kind", ["load", "by tiles"])
def test_a_graph_may_be_loaded_while_a_program_is_built(
    bench: Bench, bundle: Bundle, drawing: Draw, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Either thread needs what the other one holds, if they take locks in different orders."""
    loading = threading.Event()

    def slow(*arguments: Any) -> None:
        loading.set()
        sleep(0.2)  # in which the other thread comes to what it builds
        check_known_answer(*arguments)

    monkeypatch.setattr(backends, "check_known_answer", slow)
    codec, image = bench.codec(bundle), drawing(60, 70)
    work = codec.load if kind == "load" else lambda: codec.host.quantise(image, 20)
    threads = [threading.Thread(target=x, daemon=True) for x in (work, lambda: codec.encode(image, 20))]
    threads[0].start()
    assert loading.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    codec.close()


def test_begun_images_wait_in_workspaces_of_their_own(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw
) -> None:
    device = bench.codec(bundle)
    images = [drawing(50, 60 + k) for k in range(3)]
    begun = [device.begin_encoding(image, 30) for image in images]
    assert [finish() for finish in reversed(begun)] == [codec.encode(image, 30) for image in reversed(images)]
    device.close()
    assert bench.driver.left() == {}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("captured", [False, True])
def test_infinities_and_nan_are_errors_not_images(
    bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw, coder: str, value: float, captured: bool
) -> None:
    image, device = drawing(60, 70), bench.codec(bundle, host_coder=coder == "host")
    data = codec.encode(image, 20)
    expected = codec.decode(data).image
    for role, code in (("analysis", lambda: device.encode(image, 20)), ("synthesis", lambda: device.decode(data))):
        if captured:  # from the second time on; after an error a program is new
            code()
        before = bench.driver.counts["launch_graph"]
        bench.backend.spoilt = {role: value}
        with pytest.raises(BackendError, match="the model gives infinity or NaN on backend fake"):
            code()
        assert (bench.driver.counts["launch_graph"] > before) == captured
        bench.backend.spoilt = {}
    assert device.encode(image, 20) == data
    np.testing.assert_array_equal(device.decode(data).image, expected)
    device.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_guarded_codecs_run_on_the_device_graph_by_graph(bench: Bench, data_folder, drawing: Draw) -> None:  # type: ignore[no-untyped-def]
    from condic.runtime.bundle import read_bundle

    guarded = read_bundle(data_folder / "cic-sr-t.condic")
    image, device, host = drawing(70, 90), bench.codec(guarded), Codec(guarded, "ort")
    data = device.encode(image, 40)
    assert data == host.encode(image, 40)
    assert host.decode(data, latents=True).latents_sha256() == device.decode(data, latents=True).latents_sha256()
    assert bench.driver.counts["pixels_to_tensor"] == 0
    device.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_without_a_driver_one_line_says_so() -> None:
    if find_library("cuda"):
        pytest.skip("an NVIDIA driver is installed")
    with pytest.raises(BackendError, match=r"^no NVIDIA driver here[^\n]*--backend ort\)$"):
        open_driver()


class TestTheFakeDriver:
    """Catches what would be undefined on a GPU."""

    def test_memory_is_freed_once(self, bench: Bench) -> None:
        with bench.driver.entered():
            address = bench.driver.allocate(100)
            bench.driver.release(address)
            with pytest.raises(MisuseError, match="freed twice"):
                bench.driver.release(address)

    def test_freed_memory_is_not_used(self, bench: Bench) -> None:
        driver = bench.driver
        with driver.entered():
            address, stream = driver.allocate(100), driver.create_stream()
            driver.clear(address, 100, stream)
            driver.release(address)
            with pytest.raises(MisuseError, match="no longer, device memory"):
                driver.synchronise(stream)

    def test_nothing_works_without_the_context(self, bench: Bench) -> None:
        with pytest.raises(MisuseError, match="without the context"):
            bench.driver.allocate(100)

    def test_pageable_memory_is_not_copied(self, bench: Bench) -> None:
        driver = bench.driver
        with driver.entered(), pytest.raises(MisuseError, match="page-locked"):
            driver.upload(driver.allocate(100), np.zeros(100, np.uint8), driver.create_stream())

    def test_a_stream_does_nothing_until_it_is_synchronised(self, bench: Bench) -> None:
        driver = bench.driver
        with driver.entered():
            array, address, stream = driver.allocate_pinned(64), driver.allocate(64), driver.create_stream()
            driver.clear(address, 64, stream)
            driver.download(array, address, stream)
            assert array.any()
            driver.synchronise(stream)
            assert not array.any()


def test_images_that_no_engine_takes_leave_all_workspaces_free(bench: Bench, bundle: Bundle, drawing: Draw) -> None:
    bench.backend.largest = 512
    codec = bench.codec(bundle)
    for _ in range(WORKSPACES + 1):  # one more than would hang
        with pytest.raises(SizeError):
            codec.encode(drawing(130, 1500), 20)
        assert codec._device is not None
        assert codec._device._free._value == WORKSPACES


@pytest.mark.parametrize("capturable", [True, False])
def test_an_interrupted_image_leaves_no_workspace_behind(
    bench: Bench, bundle: Bundle, drawing: Draw, capturable: bool
) -> None:
    """In the middle of a capture too: a stream that is recorded cannot be waited for."""
    bench.backend.capturable = capturable
    codec, image = bench.codec(bundle), drawing(40, 50)
    data = codec.encode(image, 20)

    def interrupt(name: str) -> None:
        if name == "upload":
            raise KeyboardInterrupt

    bench.driver.fail = interrupt
    with pytest.raises(KeyboardInterrupt):
        codec.encode(image, 20)
    bench.driver.fail = lambda name: None
    assert codec._device is not None
    assert codec._device._free._value == WORKSPACES
    assert codec._device._idle == []
    assert codec.encode(image, 20) == data
    codec.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_a_capture_that_fails_midway_leaves_no_graph(bench: Bench, bundle: Bundle, codec: Codec, drawing: Draw) -> None:
    device, image, failed = bench.codec(bundle), drawing(40, 50), list[str]()
    device.encode(image, 20)

    def fail(name: str) -> None:
        if name == "enqueue" and bench.driver.counts["begin_capture"] == 1 and not failed:
            failed.append(name)
            raise BackendError("not while a stream is recorded")

    bench.driver.fail = fail
    assert device.encode(image, 20) == codec.encode(image, 20)
    assert failed
    device.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_programs_for_many_formats_are_let_go(bench: Bench, bundle: Bundle, drawing: Draw) -> None:
    codec = bench.codec(bundle)
    for k in range(_MOST_PROGRAMS + 3):  # smaller and smaller: the memory that they share stays
        codec.encode(drawing(20, 50 - k), 20)
    assert codec._device is not None
    (workspace,) = codec._device._idle
    assert len(workspace._programs) == _MOST_PROGRAMS
    codec.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)


def test_a_graph_on_host_arrays_keeps_few_sizes(bench: Bench, bundle: Bundle) -> None:
    codec = bench.codec(bundle)
    graph = next(x for x in bundle.manifest.graphs if x.precision == "float")
    before = bench.backend.open
    for k in range(1, _MOST_SIZES + 4):
        size = 128, 128 * k
        codec.graphs.run(graph.role, [np.zeros(x.shape(*size), np.float32) for x in graph.inputs])
    assert bench.backend.open - before <= _MOST_SIZES
    codec.close()
    assert (bench.driver.left(), bench.backend.open) == ({}, 0)
