"""A backend on a `FakeDriver`: graphs are run by ONNX Runtime on the memory that stands for the device's."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_emulator import view
from fake_driver import FakeDriver

from condic.errors import SizeError
from condic.runtime import backends
from condic.runtime.backends import Backend, BackendOptions, open_backend
from condic.runtime.bundle import Bundle
from condic.runtime.cuda.graph import DeviceGraph, Size, bytes_of
from condic.runtime.manifest import Graph


class FakeBackend:
    """ONNX Runtime with one thread, for padded images of sides up to `largest`.

    Attributes:
        scratch: bytes of memory that every graph overwrites while it runs.
        capturable: whether its graphs may be captured.
        open: how many executions have not been closed.
        spoilt: what graphs give, by role, in place of their outputs' first value.
    """

    name = "fake"

    def __init__(self, driver: FakeDriver, largest: int = 2**16) -> None:
        self.driver, self.largest = driver, largest
        self.scratch, self.capturable, self.open = 1000, True, 0
        self.spoilt: dict[str, float] = {}
        self._inner: Backend = open_backend("ort", BackendOptions(threads=1))

    def describe(self) -> str:
        return "a fake"

    def load(self, graph: Graph, bundle: Bundle) -> DeviceGraph:
        run = self._inner.load(graph, bundle)

        def takes(size: Size) -> bool:
            return max(size) <= self.largest

        def prepare(size: Size) -> FakeExecution:
            if not takes(size):
                raise SizeError(f"no engine of {graph.role} for {size}")
            return FakeExecution(self, graph, run, size)

        return DeviceGraph(self.driver, graph, prepare, takes)


class FakeExecution:
    """A graph for one size."""

    def __init__(self, backend: FakeBackend, graph: Graph, run: object, size: Size) -> None:
        self._backend, self._graph, self._run, self._size = backend, graph, run, size
        self.scratch, self.capturable = backend.scratch, backend.capturable
        self._closed = False
        backend.open += 1

    def enqueue(self, inputs: Sequence[int], outputs: Sequence[int], scratch: int, stream: int) -> None:
        driver = self._backend.driver
        driver._check_context("enqueue")
        places = [(spec, at) for specs, given in ((self._graph.inputs, inputs), (self._graph.outputs, outputs))
                  for spec, at in zip(specs, given, strict=True)]  # fmt: skip

        def work() -> None:
            assert not self._closed, "an execution ran after it was closed"
            for spec, at in places:
                driver.check(at, bytes_of(spec, self._size))
                assert at % 512 == 0, "TensorRT wants addresses that are multiples of 512"
            if self.scratch:
                driver.check(scratch, self.scratch)
                view(scratch, self.scratch, np.uint8).fill(0x5A)
            arrays = [view(at, spec.shape(*self._size), np.float32) for spec, at in places]
            results = self._run(arrays[: len(inputs)])  # type: ignore[operator]
            for target, result in zip(arrays[len(inputs) :], results, strict=True):
                target[...] = result
                target.flat[0] = self._backend.spoilt.get(self._graph.role, target.flat[0])

        driver.queue(stream, work)

    def close(self) -> None:
        assert not self._closed, "an execution was closed twice"
        self._closed = True
        self._backend.open -= 1


def registered(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """The backend, known by its name while a test runs."""
    point = SimpleNamespace(load=lambda: lambda options: backend)
    known = dict(backends._registered())
    monkeypatch.setattr(backends, "_registered", lambda: known | {backend.name: point})
    return backend
