"""CUDA through pycuda, and its graphs, which pycuda does not have, through the driver library itself."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pycuda.driver as cuda

from condic.errors import BackendError, DeviceLostError, DeviceMemoryError
from condic.kernels import device
from condic.kernels.device import Launch
from condic.runtime.cuda.arena import ALIGNMENT
from condic.runtime.cuda.arguments import packed
from condic.runtime.cuda.buffers import Buffers
from condic.runtime.cuda.driver import CPU, Device, find_libcuda

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
_PRIORITY, _STREAM_PRIORITY_SINCE = 8, (12, 0)  # CU_LAUNCH_ATTRIBUTE_PRIORITY, and since when streams take it
_NODE_PRIORITY, _NODE_PRIORITY_SINCE = 8, (11, 7)  # CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY: kernels keep theirs
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_CAPTURE_ERRORS = 900  # CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED and those after it


class PycudaDriver:
    """The primary context of device 0: retained, and pushed by each thread while it works; see `driver.Driver`."""

    def __init__(self) -> None:
        """Raises BackendError where the device refuses."""
        self._library = find_libcuda()
        self.buffers = Buffers(self)
        self._pushed, self._thread = threading.local(), threading.get_ident()
        self._memory: dict[int, Any] = {}
        self._objects: dict[int, Any] = {}
        """Streams by their handles, events by a number that is never used again."""
        self._graphs: set[int] = set()
        self._module: Any = None
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._context: Any = None
        with self._said_clearly():
            cuda.init()
            device = cuda.Device(0)
            self._context = device.retain_primary_context()
            version = cuda.get_driver_version()
            self.device = Device(
                device.name(), device.compute_capability(), device.total_memory(),
                (version // 1000, version % 1000 // 10),
            )  # fmt: skip

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Makes the context this thread's; nested uses cost nothing."""
        if getattr(self._pushed, "depth", 0):
            self._pushed.depth += 1
        else:
            with self._said_clearly():
                self._context.push()
            self._pushed.depth = 1
        try:
            yield
        finally:
            self._pushed.depth -= 1
            if not self._pushed.depth:
                self._context.pop()

    def free_memory(self) -> int:
        """Bytes of device memory that could still be allocated."""
        with self._said_clearly():
            free: int = cuda.mem_get_info()[0]
        return free

    def allocate(self, size: int) -> int:
        """An address of `size` bytes of device memory, a multiple of `ALIGNMENT`: CUDA promises 256 alone."""
        with self._said_clearly(f"{size / 2**20:,.0f} MiB"):
            allocation = cuda.mem_alloc(size + ALIGNMENT - 256)
        address = -(-int(allocation) // ALIGNMENT) * ALIGNMENT
        self._memory[address] = allocation
        return address

    def release(self, address: int) -> None:
        """Frees what `allocate` gave."""
        with self._said_clearly():
            self._memory.pop(address).free()

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """`size` bytes of page-locked host memory."""
        with self._said_clearly(f"{size / 2**20:,.0f} MiB of page-locked host memory"):
            array: npt.NDArray[np.uint8] = cuda.pagelocked_empty(size, np.uint8)
        self._memory[array.ctypes.data] = array.base
        return array

    def release_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        """Frees what `allocate_pinned` gave."""
        with self._said_clearly():
            self._memory.pop(array.ctypes.data).free()

    def create_stream(self, *, urgent: bool = False) -> int:
        """A stream that does not wait for the default one. Kernels of `urgent` ones go before those of others."""
        with self._said_clearly():
            stream = cuda.Stream(1)  # CU_STREAM_NON_BLOCKING
        handle = int(stream.handle)
        self._objects[handle] = stream
        if urgent and self.device.cuda >= _STREAM_PRIORITY_SINCE:
            with suppress(BackendError):  # a hint: everything comes out the same without it
                self._make_urgent(handle)
        return handle

    def _make_urgent(self, stream: int) -> None:
        least, greatest = ctypes.c_int(), ctypes.c_int()
        self._call("cuCtxGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
        value = (ctypes.c_int * 16)(greatest.value)  # a CUlaunchAttributeValue has 64 bytes
        self._call("cuStreamSetAttribute", ctypes.c_void_p(stream), ctypes.c_int(_PRIORITY), ctypes.byref(value))

    def destroy_stream(self, stream: int) -> None:
        """Lets a stream go; it must be idle."""
        del self._objects[stream]  # the only reference: pycuda destroys it now

    def synchronise(self, stream: int) -> None:
        """Waits for everything on a stream; other Python threads run meanwhile."""
        with self._said_clearly():
            self._objects[stream].synchronize()

    def create_event(self) -> int:
        """An event that takes the time."""
        with self._said_clearly():
            event = cuda.Event()
        number = next(self._numbers)  # small: streams go by their addresses, which these never are
        self._objects[number] = event
        return number

    def destroy_event(self, event: int) -> None:
        """Lets an event go."""
        del self._objects[event]

    def record(self, event: int, stream: int) -> None:
        """Queues an event."""
        with self._said_clearly():
            self._objects[event].record(self._objects[stream])

    def wait(self, stream: int, event: int) -> None:
        """What is queued on `stream` from now on waits for an event, as it was queued last."""
        with self._said_clearly():
            self._objects[stream].wait_for_event(self._objects[event])

    def elapsed(self, first: int, last: int) -> float:
        """Seconds between two events that have passed."""
        with self._said_clearly():
            milliseconds: float = self._objects[last].time_since(self._objects[first])
        return milliseconds / 1000

    def upload(self, address: int, array: npt.NDArray[Any], stream: int) -> None:
        """Queues a copy of a contiguous array to the device."""
        with self._said_clearly():
            cuda.memcpy_htod_async(address, array, self._objects[stream])

    def download(self, array: npt.NDArray[Any], address: int, stream: int) -> None:
        """Queues a copy from the device that fills a contiguous array."""
        with self._said_clearly():
            cuda.memcpy_dtoh_async(array, address, self._objects[stream])

    def clear(self, address: int, size: int, stream: int) -> None:
        """Queues filling `size` bytes, a multiple of 4, with zeros."""
        with self._said_clearly():
            cuda.memset_d32_async(address, 0, size // 4, self._objects[stream])

    def load_kernels(self) -> None:
        """Loads the kernels that launches name, the first time."""
        with self._lock, self._said_clearly():
            if self._module is None:
                self._module = self._kernels()

    def _kernels(self) -> Any:
        """The module; compiled now where the driver does not take the one that condic was built with."""
        try:
            return cuda.module_from_buffer(device.device_image(self.device.capability, self.device.cuda))
        except cuda.Error as error:
            with suppress(BackendError):
                return cuda.module_from_buffer(device.compile_image(self.device.capability, self.device.cuda))
            raise error

    def launch(self, launch: Launch, stream: int) -> None:
        """Queues a kernel; they have been loaded."""
        with self._said_clearly():
            function = self._functions.get(launch.kernel)
            if function is None:
                function = self._module.get_function(launch.kernel)
                self._functions[launch.kernel] = function
            # Not function(..): it would not align structs, and calls what CUDA has deprecated.
            function._launch_kernel(launch.grid, launch.block, packed(launch.arguments), 0, self._objects[stream])

    def begin_capture(self, stream: int) -> None:
        """From here on, what this thread queues on the stream is recorded, not done."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int:
        """Ends the recording, even after an error; gives a graph that can be launched."""
        recorded, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(recorded))
        flags = ctypes.c_ulonglong(_NODE_PRIORITY if self.device.cuda >= _NODE_PRIORITY_SINCE else 0)
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(graph), recorded, flags)
        finally:
            self._call("cuGraphDestroy", recorded)
        assert graph.value is not None
        self._graphs.add(graph.value)
        return graph.value

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queues everything that was recorded."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Lets a graph go."""
        self._graphs.remove(graph)
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def close(self) -> None:
        """Releases everything that is left, and the context."""
        if self._context is None:
            return
        with self.entered():
            for graph in list(self._graphs):
                self.destroy_graph(graph)
            self._functions.clear()
            self._module = None
            self._objects.clear()
            for address in list(self._memory):
                self._memory.pop(address).free()
        self._context.detach()
        self._context = None
        if threading.get_ident() == self._thread:  # there pycuda pushes the context, and leaves it
            self._library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def __del__(self) -> None:
        with suppress(Exception):  # pycuda complains about a context that is not given back
            self.close()

    def _call(self, name: str, *arguments: Any) -> None:
        """A function of the driver library. Raises BackendError."""
        function: Callable[..., int] = getattr(self._library, name)
        if code := function(*arguments):
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            message = (text.value or b"unknown error").decode()
            if code == _OUT_OF_MEMORY:
                raise DeviceMemoryError(f"out of GPU memory ({name}: {message}); {CPU}")
            if self._is_lost():
                raise _lost(f"{name}: {message}")
            raise BackendError(f"CUDA refused ({name}: {message}); {CPU}")

    @contextmanager
    def _said_clearly(self, what: str = "more memory") -> Iterator[None]:
        """pycuda's errors as this project's; `what` was asked for."""
        try:
            yield
        except cuda.MemoryError as error:
            raise DeviceMemoryError(f"the GPU has no room for {what}; close other programs, or {CPU}") from error
        except cuda.Error as error:
            line = " ".join(str(error).split())[:200]
            if self._is_lost():
                raise _lost(line) from error
            raise BackendError(f"CUDA refused ({line}); {CPU}") from error

    def _is_lost(self) -> bool:
        """Whether an error has ended the context: every call fails then. Errors from 900 on are about captures."""
        return self._context is not None and 0 < self._library.cuCtxSynchronize() < _CAPTURE_ERRORS


def _lost(what: str) -> DeviceLostError:
    return DeviceLostError(f"the GPU was lost while it worked ({what}); start again, or {CPU}")
