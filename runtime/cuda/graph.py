"""A graph on a device: prepared for one size of image at a time, run on device addresses, or on host arrays."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from condic.errors import BackendError
from condic.runtime.arrays import Tensor
from condic.runtime.cuda.arena import ALIGNMENT
from condic.runtime.cuda.driver import Driver
from condic.runtime.manifest import Graph, Size, TensorSpec

SETTING_UP = threading.RLock()
"""Held while graphs are loaded, executions are made, run for the first time and let go, and while a stream is recorded:
as long as one is, no thread may wait for the whole device, which libraries may do when they set themselves up. It is
taken before any lock of a graph."""
_MOST_SIZES = 4


class Execution(Protocol):
    """A graph made ready for one size of image, for one thread at a time."""

    scratch: int
    """Bytes of device memory that it needs while it runs."""
    capturable: bool
    """Whether a CUDA graph may record it."""

    def enqueue(self, inputs: Sequence[int], outputs: Sequence[int], scratch: int, stream: int) -> None:
        """Queues a run. Addresses of float32 tensors in the graph's order, and of scratch memory."""
        ...

    def close(self) -> None:
        """Lets go of what it holds; its stream is idle."""
        ...


class DeviceGraph:
    """A loaded graph. On host arrays it is a `Runner`, safe to call from threads."""

    def __init__(
        self,
        driver: Driver,
        graph: Graph,
        prepare: Callable[[Size], Execution],
        takes: Callable[[Size], bool] = lambda size: True,
    ) -> None:
        """`prepare` makes an execution for a padded image's size, SizeError where `takes` says no."""
        self.driver, self.graph, self.takes, self._prepare = driver, graph, takes, prepare
        self._prepared: OrderedDict[Size, Execution] = OrderedDict()
        self._stream = 0
        self._lock = threading.Lock()

    def prepare(self, size: Size) -> Execution:
        """An execution of the caller's own."""
        with SETTING_UP, self.driver.entered():
            return self._prepare(size)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs for host arrays, float32 in the order of `Graph.inputs`. Raises BackendError."""
        size = size_of(self.graph, inputs)
        outputs = [np.empty(spec.shape(*size), np.float32) for spec in self.graph.outputs]
        with self._lock, self.driver.entered():
            if size in self._prepared:
                self._prepared.move_to_end(size)
                self._run(self._prepared[size], inputs, outputs)
                return outputs
        with SETTING_UP, self._lock, self.driver.entered():
            self._run(self._prepared.get(size) or self._make(size), inputs, outputs)
        return outputs

    def close(self) -> None:
        """Lets go of everything."""
        with SETTING_UP, self._lock, self.driver.entered():
            while self._prepared:
                self._prepared.popitem()[1].close()
            if self._stream:
                self.driver.destroy_stream(self._stream)
            self._stream = 0
            self.driver.buffers.clear()

    def _make(self, size: Size) -> Execution:
        """One more, in place of the one that was not used for longest: an image's tiles have few sizes."""
        while len(self._prepared) >= _MOST_SIZES:
            self._prepared.popitem(last=False)[1].close()
        self._prepared[size] = self._prepare(size)
        return self._prepared[size]

    def _run(self, execution: Execution, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        arrays = [*inputs, *outputs]
        offsets = np.cumsum([0] + [-(-x.nbytes // ALIGNMENT) * ALIGNMENT for x in arrays]).tolist()
        driver, size, count = self.driver, offsets[-1], len(inputs)
        stream = self._stream = self._stream or driver.create_stream()
        with driver.buffers.lent(size + max(execution.scratch, 1), size) as buffer:
            places = [
                buffer.staging[offset : offset + x.nbytes].view(np.float32)
                for offset, x in zip(offsets, arrays, strict=False)
            ]
            given = [buffer.address + offset for offset in offsets[:-1]]
            try:
                for place, x, at in zip(places, inputs, given, strict=False):
                    place[:] = x.reshape(-1)
                    driver.upload(at, place, stream)
                execution.enqueue(given[:count], given[count:], buffer.address + size, stream)
                for place, at in zip(places[count:], given[count:], strict=True):
                    driver.download(place, at, stream)
                driver.synchronise(stream)
            except BaseException:
                with suppress(BackendError):
                    driver.synchronise(stream)  # what is still queued uses what is released now
                raise
            for place, x in zip(places[count:], outputs, strict=True):
                x.reshape(-1)[:] = place


def device_graph(runner: object) -> DeviceGraph:
    """What a backend with a driver has loaded."""
    assert isinstance(runner, DeviceGraph), f"a backend with a driver gave {runner}"
    return runner


def bytes_of(spec: TensorSpec, size: Size) -> int:
    """A tensor's size."""
    return 4 * int(np.prod(spec.shape(*size)))


def size_of(graph: Graph, inputs: Sequence[Tensor]) -> Size:
    """The size of the padded image, or part of one, that inputs belong to."""
    for spec, x in zip(graph.inputs, inputs, strict=True):
        if spec.stride:
            return x.shape[2] * spec.stride, x.shape[3] * spec.stride
    raise BackendError(f"graph {graph.role} has no input with an extent")
