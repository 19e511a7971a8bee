"""Launches on arrays: what the checks of single kernels need of a driver."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.kernels.device import Launch
from condic.runtime.cuda.driver import Driver, delays


class CheckError(AssertionError):
    """A check that failed, in one line."""


def require(condition: object, message: str) -> None:
    """Raises CheckError, also where assertions are turned off."""
    if not condition:
        raise CheckError(message)


class Bench:
    """Memory and a stream of a driver, within its context: a context manager."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __enter__(self) -> Bench:
        self._context = self.driver.entered()
        self._context.__enter__()
        self.driver.load_kernels()
        self._stream = self.driver.create_stream()
        self._memory: list[int] = []
        return self

    def __exit__(self, *_: object) -> None:
        for address in self._memory:
            self.driver.release(address)
        self.driver.destroy_stream(self._stream)
        self._context.__exit__(None, None, None)

    def put(self, array: npt.NDArray[Any]) -> int:
        """A copy of an array on the device."""
        staging = self.driver.allocate_pinned(array.nbytes)
        staging[:] = array.reshape(-1).view(np.uint8)
        self._memory.append(self.driver.allocate(array.nbytes))
        self.driver.upload(self._memory[-1], staging, self._stream)
        self.driver.synchronise(self._stream)
        self.driver.release_pinned(staging)
        return self._memory[-1]

    def zeros(self, size: int) -> int:
        """So many zero bytes on the device."""
        return self.put(np.zeros(-(-size // 4) * 4, np.uint8))

    def get(self, address: int, shape: int | tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """What is at an address."""
        wanted = np.empty(shape, dtype)
        staging = self.driver.allocate_pinned(max(1, wanted.nbytes))
        self.driver.download(staging, address, self._stream)
        self.driver.synchronise(self._stream)
        result = staging[: wanted.nbytes].view(dtype).reshape(shape).copy()
        self.driver.release_pinned(staging)
        return result  # type: ignore[no-any-return]

    def run(self, *launches: Launch) -> None:
        """Launches, and waits."""
        for launch in launches:
            self.driver.launch(launch, self._stream)
        self.driver.synchronise(self._stream)

    def seconds(self, prepare: Callable[[], None], *launches: Launch, runs: int) -> float:
        """Median of the device's time for the launches, without that which the host takes to queue them.

        They have run once just before, so that caches hold what they do after the graph that makes their inputs: the
        delay clears more memory than any cache holds.
        """
        events, times = [self.driver.create_event() for _ in range(2)], []
        with delays(self.driver) as delay:
            for _ in range(runs):
                delay(self._stream)
                prepare()
                for launch in launches:
                    self.driver.launch(launch, self._stream)
                prepare()
                self.driver.record(events[0], self._stream)
                for launch in launches:
                    self.driver.launch(launch, self._stream)
                self.driver.record(events[1], self._stream)
                self.driver.synchronise(self._stream)
                times.append(self.driver.elapsed(*events))
        for event in events:
            self.driver.destroy_event(event)
        return statistics.median(times)

    def clear(self, address: int, size: int) -> None:
        """Zeros again."""
        self.driver.clear(address, -(-size // 4) * 4, self._stream)
