"""What the runtime needs of CUDA, and how it fails. The one implementation is `pycuda_driver`; tests have a fake.

Device addresses, streams, events and captured graphs are integers. Everything that is created here is
released by name, and `close` releases the rest. Copies, fills and launches are queued on a stream and return at once;
host arrays that they read or write must be page-locked (`allocate_pinned`) and be left alone until the stream has been
synchronised. Every call but `entered` itself happens within `entered`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from condic.errors import BackendError
from condic.kernels.device import Launch
from condic.runtime.cuda.buffers import Buffers

CPU = "the CPU path does without a GPU (--backend ort)"
"""The way out that every message names."""


@dataclass(frozen=True)
class Device:
    """A GPU: its name, compute capability, memory in bytes, and the version of CUDA that its driver speaks."""

    name: str
    capability: tuple[int, int]
    memory: int
    cuda: tuple[int, int]

    def describe(self) -> str:
        """For people."""
        major, minor = self.capability
        return f"{self.name} (sm_{major}{minor}), CUDA {self.cuda[0]}.{self.cuda[1]}"


class Driver(Protocol):
    """CUDA's primary context on one device, safe to share between threads that use streams of their own.

    Methods raise DeviceMemoryError, DeviceLostError, or another BackendError.
    """

    device: Device
    buffers: Buffers
    """What graphs that are run on arrays of the host take in turn."""

    def entered(self) -> AbstractContextManager[None]:
        """Makes the context this thread's; nested uses cost nothing."""
        ...

    def free_memory(self) -> int:
        """Bytes of device memory that could still be allocated."""
        ...

    def allocate(self, size: int) -> int:
        """An address of `size` bytes of device memory, a multiple of `ALIGNMENT` (arena)."""
        ...

    def release(self, address: int) -> None:
        """Frees what `allocate` gave. No stream may still use it."""
        ...

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """`size` bytes of page-locked host memory."""
        ...

    def release_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        """Frees what `allocate_pinned` gave."""
        ...

    def create_stream(self, *, urgent: bool = False) -> int:
        """A stream that does not wait for the default one. Kernels of `urgent` ones go before those of others."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Lets a stream go; it must be idle."""
        ...

    def synchronise(self, stream: int) -> None:
        """Waits for everything on a stream; other Python threads run meanwhile."""
        ...

    def create_event(self) -> int:
        """An event that takes the time."""
        ...

    def destroy_event(self, event: int) -> None:
        """Lets an event go."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Queues an event."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """What is queued on `stream` from now on waits for an event, as it was queued last."""
        ...

    def elapsed(self, first: int, last: int) -> float:
        """Seconds between two events that have passed."""
        ...

    def upload(self, address: int, array: npt.NDArray[Any], stream: int) -> None:
        """Queues a copy of a contiguous array to the device."""
        ...

    def download(self, array: npt.NDArray[Any], address: int, stream: int) -> None:
        """Queues a copy from the device that fills a contiguous array."""
        ...

    def clear(self, address: int, size: int, stream: int) -> None:
        """Queues filling `size` bytes, a multiple of 4, with zeros."""
        ...

    def load_kernels(self) -> None:
        """Loads the kernels that launches name, the first time."""
        ...

    def launch(self, launch: Launch, stream: int) -> None:
        """Queues a kernel; they have been loaded."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From here on, what this thread queues on the stream is recorded, not done."""
        ...

    def end_capture(self, stream: int) -> int:
        """Ends the recording, even after an error; gives a graph that can be launched."""
        ...

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queues everything that was recorded."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Lets a graph go."""
        ...

    def close(self) -> None:
        """Releases everything that is left, and the context. Later calls do nothing."""
        ...


_DELAY_BYTES, _DELAY_CLEARS = 2**30, 12


@contextmanager
def delays(driver: Driver) -> Iterator[Callable[[int], None]]:
    """For measuring: yields a function that keeps a stream busy for some milliseconds.

    What is queued meanwhile then runs without a gap, so that the time between two events is the device's own and not
    that which the host took to queue it.
    """
    size = min(_DELAY_BYTES, driver.free_memory() // 2) // 4 * 4
    address = driver.allocate(size)

    def delay(stream: int) -> None:
        for _ in range(_DELAY_CLEARS):
            driver.clear(address, size, stream)

    try:
        yield delay
    finally:
        driver.release(address)


def open_driver() -> Driver:
    """The first CUDA device, through pycuda. Raises BackendError, in one line, where there is none."""
    find_libcuda()  # before anything is imported that crashes without it
    try:
        from condic.runtime.cuda.pycuda_driver import PycudaDriver

        return PycudaDriver()
    except ImportError as error:
        raise BackendError(
            f"pycuda is not installed, or is for a newer CUDA than this driver's ({error}); pip install pycuda "
            f"(--no-binary pycuda builds it for the CUDA that is here), or {CPU}"
        ) from error


def find_libcuda() -> ctypes.CDLL:
    """The driver library. Raises BackendError where the machine has none, or it finds no GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"no NVIDIA driver here (libcuda.so.1 is not found); install it, or {CPU}") from error
    if library.cuInit(0):
        raise BackendError(f"the NVIDIA driver finds no GPU that it can use (see nvidia-smi); {CPU}")
    return library
