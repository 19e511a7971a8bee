"""A CUDA that is none: device memory on the host, streams that do nothing until they must, and a strict eye on both.

What is queued on a stream happens when someone synchronises it, no sooner: whoever reads a result too early, or writes
into a staging buffer that is still to be read, gets other bytes than on the CPU. Other streams that it waits for go on
as late as they may, or as early (`hasty`). Freed memory is never used again. Addresses are checked when something is
queued and again when it happens; every use needs the context.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda_emulator import DeviceMemory, Emulator, Order

from condic.errors import BackendError, DeviceLostError, DeviceMemoryError
from condic.kernels.device import Launch
from condic.runtime.cuda.arena import ALIGNMENT
from condic.runtime.cuda.buffers import Buffers
from condic.runtime.cuda.driver import CPU, Device

Work = Callable[[], None]
_POISON = 0xC5


class MisuseError(AssertionError):
    """Something that would be undefined behaviour on a GPU."""


@dataclass(eq=False)
class Stream:
    """What is still to happen: work, marks to be reached, and marks of others to be waited for."""

    queue: list[Work | Mark | Wait] = field(default_factory=list)
    capture: Capture | None = None


@dataclass(eq=False)
class Mark:
    """An event as it was recorded once, on a stream or in a capture."""

    stream: Stream
    capture: Capture | None
    time: float | None = None
    """When it was reached."""


@dataclass
class Wait:
    """A stream goes on when a mark has been reached."""

    mark: Mark


@dataclass(eq=False)
class Capture:
    """What is recorded, by stream, the first of which is the one that was asked for; by which thread."""

    streams: dict[Stream, list[Work | Mark | Wait]]
    thread: int
    ended: bool = False

    def is_joined(self) -> bool:
        """Whether all other streams have been waited for when the first ends."""
        awaited = [x.mark for queue in self.streams.values() for x in queue if isinstance(x, Wait)]
        return all(not queue or queue[-1] in awaited for queue in list(self.streams.values())[1:])


class FakeDriver:
    """See `condic.runtime.cuda.driver.Driver`. `memory` is what the device has, `size` how much it may be in bytes.

    Attributes:
        counts: how often each thing was done, for tests to ask.
        fail: called with the name of whatever is done, before; may raise.
        refuse_captures: whether every capture fails at its end.
        eager: whether everything happens at once, for libraries that do not know these streams.
        hasty: whether streams go on as early as they may while one is synchronised, those made last first.
    """

    def __init__(self, emulator: Emulator, memory: DeviceMemory, size: int = 2**40, order: Order = "forward") -> None:
        self.device = Device("fake GPU", (8, 7), size, (12, 6))
        self.buffers = Buffers(self)
        self.counts: Counter[str] = Counter()
        self.fail: Callable[[str], None] = lambda name: None
        self.refuse_captures = False
        self.eager = self.hasty = False
        self._emulator, self._memory, self._order = emulator, memory, order
        self._depth = threading.local()
        self._allocations: dict[int, int] = {}
        self._pinned: dict[int, npt.NDArray[np.uint8]] = {}
        self._streams: dict[int, Stream] = {}
        self._launched: list[Stream] = []
        """Of graphs that have been launched."""
        self._events: dict[int, Mark | None] = {}
        self._graphs: dict[int, Capture] = {}
        self._numbers = itertools.count(1)
        self._clock = itertools.count()
        self._one_kernel = threading.Lock()
        self._loaded = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        self.counts["pushes"] += not getattr(self._depth, "value", 0)
        self._depth.value = getattr(self._depth, "value", 0) + 1
        try:
            yield
        finally:
            self._depth.value -= 1

    def free_memory(self) -> int:
        self._check_context("free_memory")
        return self.device.memory - sum(list(self._allocations.values()))

    def allocate(self, size: int) -> int:
        self._check_context("allocate")
        if size > self.free_memory():
            raise DeviceMemoryError(f"the GPU has no room for {size} bytes; {CPU}")
        address = self._memory.allocate(size, ALIGNMENT)
        self._allocations[address] = size
        return address

    def release(self, address: int) -> None:
        self._check_context("release")
        if address not in self._allocations:
            raise MisuseError(f"{address:#x} was freed twice, or never allocated")
        del self._allocations[address]
        self._memory.free(address)

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        self._check_context("allocate_pinned")
        array = np.full(size, _POISON, np.uint8)
        self._pinned[array.ctypes.data] = array
        return array

    def release_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        self._check_context("release_pinned")
        if self._pinned.pop(array.ctypes.data, None) is None:
            raise MisuseError("page-locked memory was freed twice, or never allocated")
        array.fill(_POISON)

    def create_stream(self, *, urgent: bool = False) -> int:
        self._check_context("create_stream")
        number = next(self._numbers)
        self._streams[number] = Stream()
        return number

    def destroy_stream(self, stream: int) -> None:
        self._check_context("destroy_stream")
        if self._streams[stream].queue:
            raise MisuseError("a stream with work on it was destroyed")
        del self._streams[stream]

    def synchronise(self, stream: int) -> None:
        self._check_context("synchronise")
        found = self._stream(stream)
        if found.capture is not None:
            raise MisuseError("a stream was synchronised while it is being captured")
        while found.queue:
            if self.hasty:
                for other in [*reversed(self._launched), *reversed(self._streams.values())]:
                    while other is not found and self._go_on(other):
                        pass
            self._catch_up(found)

    def _go_on(self, stream: Stream) -> bool:
        """Does what is next on a stream, if it need not wait."""
        if not stream.queue or (isinstance(stream.queue[0], Wait) and stream.queue[0].mark.time is None):
            return False
        match stream.queue.pop(0):
            case Wait():
                pass
            case Mark() as mark:
                mark.time = next(self._clock) * 1e-6
            case work:
                work()
        return True

    def _catch_up(self, stream: Stream) -> None:
        """Does what is next on a stream, and before that what it waits for."""
        while not self._go_on(stream):
            if not stream.queue:
                raise MisuseError("a stream waits for what never happens")
            waiting = stream.queue[0]
            assert isinstance(waiting, Wait)
            self._catch_up(waiting.mark.stream)

    def create_event(self) -> int:
        self._check_context("create_event")
        number = next(self._numbers)
        self._events[number] = None
        return number

    def destroy_event(self, event: int) -> None:
        self._check_context("destroy_event")
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        self._check_context("record")
        found = self._stream(stream)
        self._events[event] = mark = Mark(found, found.capture)
        self._queue(found, mark)

    def wait(self, stream: int, event: int) -> None:
        self._check_context("wait")
        found, mark = self._stream(stream), self._events[event]
        if mark is None:
            raise MisuseError("a stream waits for an event that has not been recorded")
        if found.capture is None and mark.capture is not None and not mark.capture.ended:
            found.capture = mark.capture  # it joins
            mark.capture.streams[found] = []
        if found.capture is not mark.capture:
            raise MisuseError("a stream that is captured and one that is not wait for each other")
        self._queue(found, Wait(mark))

    def elapsed(self, first: int, last: int) -> float:
        begin, end = self._events[first], self._events[last]
        if begin is None or end is None or begin.time is None or end.time is None:
            raise MisuseError("the time between events that have not passed was asked for")
        return end.time - begin.time

    def upload(self, address: int, array: npt.NDArray[Any], stream: int) -> None:
        self._check_context("upload")
        self._check_copy(address, array)
        self.queue(stream, lambda: self._copy(address, array, up=True))

    def download(self, array: npt.NDArray[Any], address: int, stream: int) -> None:
        self._check_context("download")
        self._check_copy(address, array)
        self.queue(stream, lambda: self._copy(address, array, up=False))

    def clear(self, address: int, size: int, stream: int) -> None:
        self._check_context("clear")
        if size % 4:
            raise MisuseError(f"{size} bytes to clear, not a multiple of 4")
        self.queue(stream, lambda: self._clear(address, size))

    def load_kernels(self) -> None:
        self._check_context("load_kernels")
        self._loaded = True

    def launch(self, launch: Launch, stream: int) -> None:
        self._check_context("launch")
        self._check_launch(launch)
        self.counts[launch.kernel] += 1

        def run() -> None:
            self._check_launch(launch)
            with self._one_kernel:
                self._emulator.launch(launch, self._order)

        self.queue(stream, run)

    def begin_capture(self, stream: int) -> None:
        self._check_context("begin_capture")
        found = self._stream(stream)
        found.capture = Capture({found: []}, threading.get_ident())

    def end_capture(self, stream: int) -> int:
        self._check_context("end_capture")
        capture, number = self._stream(stream).capture, next(self._numbers)
        if capture is None:
            raise MisuseError("a capture was ended that had not begun")
        capture.ended = True
        for each in capture.streams:
            each.capture = None
        if not capture.is_joined():
            raise BackendError("a stream that joined the capture has not been waited for")
        if self.refuse_captures:
            raise BackendError("something was done that cannot be captured")
        self._graphs[number] = capture
        return number

    def launch_graph(self, graph: int, stream: int) -> None:
        self._check_context("launch_graph")
        found, captured = self._stream(stream), self._graphs[graph].streams
        streams = {each: Stream() for each in captured}
        marks = {x: Mark(streams[x.stream], None) for queue in captured.values() for x in queue if isinstance(x, Mark)}
        for each, queue in captured.items():
            for x in queue:
                again = Wait(marks[x.mark]) if isinstance(x, Wait) else marks[x] if isinstance(x, Mark) else x
                streams[each].queue.append(again)
        first = next(iter(streams.values()))
        begin, end = Mark(found, None), Mark(first, None)
        first.queue = [Wait(begin), *first.queue, end]
        self._launched = [x for x in self._launched if x.queue] + list(streams.values())
        self._queue(found, begin)
        self._queue(found, Wait(end))

    def destroy_graph(self, graph: int) -> None:
        self._check_context("destroy_graph")
        del self._graphs[graph]

    def close(self) -> None:
        self.counts["close"] += 1

    # What only tests and the fake backend use.

    def queue(self, stream: int, work: Work) -> None:
        """Queues or records something."""
        self._queue(self._stream(stream), work)

    def _queue(self, stream: Stream, what: Work | Mark | Wait) -> None:
        if stream.capture is None:
            stream.queue.append(what)
            if self.eager:
                self._catch_up(stream)
        elif stream.capture.thread != threading.get_ident():
            raise MisuseError("another thread used a stream that is being captured")
        else:
            stream.capture.streams[stream].append(what)

    def check(self, address: int, size: int = 1) -> None:
        """Raises MisuseError unless `size` bytes of live device memory are there."""
        for begin, length in list(self._allocations.items()):
            if begin <= address and address + size <= begin + length:
                return
        raise MisuseError(f"{size} bytes at {address:#x} are not, or no longer, device memory")

    def left(self) -> dict[str, int]:
        """What has not been released."""
        kinds = {
            "bytes": sum(list(self._allocations.values())), "pinned": sum(x.size for x in list(self._pinned.values())),
            "streams": len(self._streams), "events": len(self._events), "graphs": len(self._graphs),
        }  # fmt: skip
        return {name: count for name, count in kinds.items() if count}

    def lose(self, where: str) -> None:
        """The context is gone: the next thing of a name fails, and everything after it."""
        lost = []

        def fail(name: str) -> None:
            if name == where or lost:
                lost.append(name)
                raise DeviceLostError(f"the GPU was lost while it worked ({lost[0]}); start again, or {CPU}")

        self.fail = fail

    def resize(self, size: int) -> None:
        """From now on the device has so many bytes of memory."""
        self.device = replace(self.device, memory=size)

    def _check_context(self, name: str) -> None:
        if not getattr(self._depth, "value", 0):
            raise MisuseError(f"{name} without the context")
        self.counts[name] += 1
        self.fail(name)

    def _stream(self, stream: int) -> Stream:
        if stream not in self._streams:
            raise MisuseError("a stream was used that is not, or no longer, there")
        return self._streams[stream]

    def _check_copy(self, address: int, array: npt.NDArray[Any]) -> None:
        begin, end = array.ctypes.data, array.ctypes.data + array.nbytes
        if not array.flags.c_contiguous:
            raise MisuseError("a copy of an array that is not contiguous")
        if not any(x.ctypes.data <= begin and end <= x.ctypes.data + x.size for x in list(self._pinned.values())):
            raise MisuseError("a copy from or to memory that is not, or no longer, page-locked")
        self.check(address, array.nbytes)

    def _copy(self, address: int, array: npt.NDArray[Any], *, up: bool) -> None:
        self._check_copy(address, array)
        host = array.ctypes.data
        ctypes.memmove(*((address, host) if up else (host, address)), array.nbytes)

    def _clear(self, address: int, size: int) -> None:
        self.check(address, size)
        ctypes.memset(address, 0, size)

    def _check_launch(self, launch: Launch) -> None:
        if not self._loaded:
            raise MisuseError("a launch before the kernels were loaded")
        for address in _addresses(launch.arguments):
            self.check(address)


def _addresses(arguments: Iterable[np.generic]) -> Iterator[int]:
    """Device addresses among a kernel's arguments: every uint64 that is not 0."""
    for argument in arguments:
        if isinstance(argument, np.void) and argument.dtype.names:
            yield from _addresses(argument[name] for name in argument.dtype.names)
        elif isinstance(argument, np.uint64) and argument:
            yield int(argument)
