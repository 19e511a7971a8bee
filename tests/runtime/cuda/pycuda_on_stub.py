"""A program: the real driver module on a stub of libcuda; kernels by the emulator. See test_pycuda_driver."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from bench import Bench
from cuda_emulator import build_emulator, view
from fake_backend import registered
from kernel_checks import check_kernels, measure_kernels

import condic.kernels.device
import condic.runtime.cuda.driver
from condic.errors import BackendError, DeviceLostError, DeviceMemoryError
from condic.kernels.device import Launch, pixels_to_tensor
from condic.runtime.backends import BackendOptions, Runner, open_backend
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.codec import Codec
from condic.runtime.cuda.driver import Driver, open_driver
from condic.runtime.cuda.graph import DeviceGraph, Size
from condic.runtime.manifest import Graph

STUB = ctypes.CDLL("libcuda.so.1")
ILLEGAL_ADDRESS = 700


class StubBackend:
    """Runs graphs at once: nothing is asynchronous on the stub."""

    name = "stub"

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._inner = open_backend("ort", BackendOptions(threads=1))

    def describe(self) -> str:
        return "a stub"

    def load(self, graph: Graph, bundle: Bundle) -> DeviceGraph:
        run = self._inner.load(graph, bundle)
        return DeviceGraph(self.driver, graph, lambda size: StubExecution(graph, run, size))


class StubExecution:
    """A graph for one size."""

    scratch, capturable = 0, False

    def __init__(self, graph: Graph, run: Runner, size: Size) -> None:
        self._graph, self._run, self._size = graph, run, size

    def enqueue(self, inputs: Sequence[int], outputs: Sequence[int], scratch: int, stream: int) -> None:
        pairs = zip((*self._graph.inputs, *self._graph.outputs), (*inputs, *outputs), strict=True)
        arrays = [view(at, spec.shape(*self._size), np.float32) for spec, at in pairs]
        for target, result in zip(arrays[len(inputs) :], self._run(arrays[: len(inputs)]), strict=True):
            target[...] = result

    def close(self) -> None:
        """Holds nothing."""


def run_kernels_by_the_emulator() -> object:
    """Gives the stub a function for launches; the result must be kept."""
    emulator = build_emulator()
    assert not isinstance(emulator, str), emulator

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32)
    def launch(kernel: bytes, arguments: int, size: int, grid: int, block: int) -> None:
        task = np.frombuffer(ctypes.string_at(arguments, size), f"V{size}")[0]
        emulator.launch(Launch(kernel.decode(), (grid, 1, 1), (block, 1, 1), (task,)))

    STUB.stub_set_launch(launch)
    return launch


def refusal(code: Callable[[], object]) -> BackendError:
    """The error that something ends with."""
    with pytest.raises(BackendError) as caught:
        code()
    assert "\n" not in str(caught.value)
    assert "--backend ort" in str(caught.value)
    return caught.value


def check_codec(bundle: Bundle) -> None:
    """A codec on a driver of its own gives the host's file and picture; closing it gives everything back."""
    before = STUB.stub_live()
    with pytest.MonkeyPatch.context() as monkeypatch:
        registered(StubBackend(open_driver()), monkeypatch)  # type: ignore[arg-type]
        device, host = Codec(bundle, "stub"), Codec(bundle, "ort")
        image = np.random.default_rng(1).integers(0, 256, (70, 140, 3)).astype(np.uint8)
        data = host.encode(image, 30)
        for _ in range(3):
            assert device.encode(image, 30) == data
            assert np.array_equal(device.decode(data).image, host.decode(data).image)
        assert list(device.encode_many([image] * 5, 30)) == [data] * 5
        device.close()
    assert STUB.stub_live() == before


def check_graphs(driver: Driver) -> None:
    """What was captured, on a stream and one that follows it, is done by each launch, and not before."""
    with Bench(driver) as bench:
        pixels, tensor = bench.put(np.full((4, 4, 3), 255, np.uint8)), bench.zeros(3 * 16 * 4)
        streams, events = [driver.create_stream() for _ in range(2)], [driver.create_event() for _ in range(2)]
        driver.begin_capture(streams[0])
        driver.record(events[0], streams[0])
        driver.wait(streams[1], events[0])
        driver.launch(pixels_to_tensor(pixels, (4, 4, 3), tensor, (4, 4)), streams[1])
        driver.record(events[1], streams[1])
        driver.wait(streams[0], events[1])
        graph = driver.end_capture(streams[0])
        assert not bench.get(tensor, 48, np.float32).any()
        driver.launch_graph(graph, streams[0])
        driver.synchronise(streams[0])
        assert (bench.get(tensor, 48, np.float32) == 1).all()
        driver.destroy_graph(graph)
        for event in events:
            driver.destroy_event(event)
        for stream in streams:
            driver.destroy_stream(stream)


def check_priorities(driver: Driver) -> None:
    """Only what is urgent goes first."""
    with driver.entered():
        for urgent, priority in ((False, 0), (True, -5)):
            stream = driver.create_stream(urgent=urgent)
            assert STUB.stub_priority(ctypes.c_void_p(stream)) == priority
            driver.destroy_stream(stream)


def check_refusals(driver: Driver) -> None:
    """Errors of pycuda and of the driver library, as ours."""
    with driver.entered():
        stream = driver.create_stream()
        STUB.stub_set_memory(ctypes.c_size_t(1000))
        assert driver.free_memory() == 1000
        assert isinstance(refusal(lambda: driver.allocate(2000)), DeviceMemoryError)
        STUB.stub_set_memory(ctypes.c_size_t(2**40))
        STUB.stub_fail(ILLEGAL_ADDRESS)
        assert isinstance(refusal(lambda: driver.synchronise(stream)), DeviceLostError)
        assert isinstance(refusal(lambda: driver.begin_capture(stream)), DeviceLostError)
        STUB.stub_fail(0)
        driver.end_capture(stream)
    refusal(driver.free_memory)  # without the context


def main(bundle_path: str) -> None:
    """All of it; nothing may be left."""
    kept = run_kernels_by_the_emulator()
    condic.kernels.device.device_image = lambda *_: b"newer\0"  # than the driver: it is compiled again
    condic.kernels.device.compile_image = lambda *_: b"stub\0"
    condic.runtime.cuda.driver._DELAY_BYTES = 1024
    bundle, driver = read_bundle(Path(bundle_path)), open_driver()
    before = STUB.stub_live()
    open_driver()
    assert STUB.stub_live() == before, "one that nobody closes closes itself"
    assert driver.device.describe() == "stub (sm_90), CUDA 13.0"
    assert check_kernels(driver, bundle, (4,)) == {"chunks": 3}
    assert measure_kernels(driver, 100, 128, runs=2)["elements"] == 192 * 8 * 8 // 4
    check_codec(bundle)
    check_graphs(driver)
    check_priorities(driver)
    check_refusals(driver)
    driver.close()
    driver.close()
    assert STUB.stub_live() == 0, f"{STUB.stub_live()} things are left"
    assert kept
    print("all passed")


if __name__ == "__main__":
    main(sys.argv[1])
