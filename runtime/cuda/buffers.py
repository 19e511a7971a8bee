"""Memory that graphs on host arrays take in turn: to allocate it for each run would make the whole device wait."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from condic.errors import DeviceMemoryError

if TYPE_CHECKING:
    from condic.runtime.cuda.driver import Driver


@dataclass(frozen=True)
class Buffer:
    """Device memory, `size` bytes at an address, and page-locked memory of the host beside it, uint8."""

    address: int
    size: int
    staging: npt.NDArray[np.uint8]


class Buffers:
    """As many as are in use at the same time, each as large as the largest use of it. Threads may share them."""

    def __init__(self, driver: Driver) -> None:
        """None yet. The driver owns them."""
        self._driver = weakref.proxy(driver)
        self._idle: list[Buffer] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, size: int, staging: int) -> Iterator[Buffer]:
        """A buffer of at least so many bytes, for a use that ends with all streams that have it idle.

        To be called with the driver entered. Raises DeviceMemoryError.
        """
        buffer = self._take(size, staging)
        try:
            yield buffer
        except BaseException:
            self._release(buffer)
            raise
        with self._lock:
            self._idle.append(buffer)

    def clear(self) -> None:
        """Lets go of what is not in use. To be called with the driver entered."""
        while True:
            with self._lock:
                if not self._idle:
                    return
                buffer = self._idle.pop()
            self._release(buffer)

    def _take(self, size: int, staging: int) -> Buffer:
        with self._lock:
            buffer = self._idle.pop() if self._idle else None
        if buffer is not None:
            if size <= buffer.size and staging <= buffer.staging.size:
                return buffer
            self._release(buffer)
        try:
            return self._allocated(
                max(size, buffer.size if buffer else 0), max(staging, buffer.staging.size if buffer else 0)
            )
        except DeviceMemoryError:
            self.clear()
            return self._allocated(size, staging)

    def _allocated(self, size: int, staging: int) -> Buffer:
        address = self._driver.allocate(size)
        try:
            return Buffer(address, size, self._driver.allocate_pinned(staging))
        except BaseException:
            self._driver.release(address)
            raise

    def _release(self, buffer: Buffer) -> None:
        try:
            self._driver.release(buffer.address)
        finally:
            self._driver.release_pinned(buffer.staging)
