"""Programs at work: streams, device memory and page-locked memory, for one image at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.errors import BackendError, DeviceLostError, DeviceMemoryError
from condic.runtime.cuda.arena import ALIGNMENT, lay_out
from condic.runtime.cuda.driver import Driver, delays
from condic.runtime.cuda.graph import SETTING_UP
from condic.runtime.cuda.program import Clear, Copy, GraphRun, Kernel, Operation, Program, ProgramKey, Segment
from condic.runtime.cuda.schedule import Turn, take_turns

_MOST_PROGRAMS = 8


class Workspace:
    """Keeps the programs of the formats that it has run lately; they share its memory, which grows as it must.

    A program runs as it is the first time, since libraries set themselves up then; the second time its segments are
    captured as CUDA graphs, which are launched from then on. Where that cannot be done it goes on as it is.
    """

    def __init__(self, driver: Driver) -> None:
        """An empty one."""
        self._driver = driver
        self._programs: OrderedDict[ProgramKey, LoadedProgram] = OrderedDict()
        self._address = 0
        self._staging: npt.NDArray[np.uint8] | None = None
        self._size = 0
        self._streams = [driver.create_stream(urgent=True)]
        """The first has a program's critical path, which kernels beside it are not to hold up."""

    def program(self, key: ProgramKey, build: Callable[[ProgramKey], Program]) -> LoadedProgram:
        """The program for a key, ready to run. Raises BackendError; DeviceMemoryError leaves an empty one."""
        if key not in self._programs:
            with SETTING_UP:
                while len(self._programs) >= _MOST_PROGRAMS:
                    self._programs.popitem(last=False)[1].close()
                program = build(key)
                try:
                    self._programs[key] = self._load(program)
                except BaseException:
                    for execution in program.executions():
                        execution.close()
                    raise
        self._programs.move_to_end(key)
        return self._programs[key]

    def has(self, key: ProgramKey) -> bool:
        """Whether the program for a key is there."""
        return key in self._programs

    def wait(self) -> None:
        """Until everything that was queued is done."""
        self._driver.synchronise(self._streams[0])

    def clear(self) -> None:
        """Lets go of all programs and memory."""
        with SETTING_UP:
            while self._programs:
                self._programs.popitem()[1].close()
            if self._address:
                self._driver.release(self._address)
            if self._staging is not None:
                self._driver.release_pinned(self._staging)
            self._address, self._size, self._staging = 0, 0, None

    def close(self) -> None:
        """Lets go of everything."""
        for stream in self._streams:  # a program that was not queued to its end has not waited for all
            self._driver.synchronise(stream)
        self.clear()
        while self._streams:
            self._driver.destroy_stream(self._streams.pop())

    def _load(self, program: Program) -> LoadedProgram:
        turns = [take_turns(segment.strands) for segment in program.segments]
        layout = lay_out(*_uses(program, turns), program.sizes)
        staged = program.staged()
        places = lay_out([[list(staged)]], [()], staged)
        if layout.size > self._size or self._staging is None or places.size > self._staging.size:
            size = max(layout.size, self._size, ALIGNMENT)
            pinned = max(places.size, 0 if self._staging is None else self._staging.size)
            self.clear()  # the old before the new: both at once may be too much
            self._address = self._driver.allocate(size)
            self._size = size
            self._staging = self._driver.allocate_pinned(pinned)
        at = {name: self._address + offset for name, offset in layout.offsets.items()}
        at |= {name: at["rows"] + offset for name, offset in program.rows.offsets.items()}
        staging = {name: self._staging[offset : offset + staged[name]] for name, offset in places.offsets.items()}
        while len(self._streams) <= max(turn.stream for each in turns for turn in each):
            self._streams.append(self._driver.create_stream())
        return LoadedProgram(program, turns, at, staging, self._driver, self._streams)


class LoadedProgram:
    """A program with its addresses."""

    def __init__(
        self, program: Program, turns: Sequence[Sequence[Turn]], at: Mapping[str, int],
        staging: Mapping[str, npt.NDArray[np.uint8]], driver: Driver, streams: Sequence[int],
    ) -> None:  # fmt: skip
        """`turns`: of each segment's strands."""
        self.program, self._at, self._staging = program, at, staging
        self._driver, self._streams, self._stream = driver, streams, streams[0]
        self._events: list[int] = []
        self._segments = [self._queueing(*each) for each in zip(program.segments, turns, strict=True)]
        self._capturable = all(execution.capturable for execution in program.executions())
        self._runs = [0] * len(program.segments)
        self._graphs: dict[int, int] = {}
        self.refusal: BackendError | None = None
        """Why the program is not launched as CUDA graphs, where that was tried in vain."""

    def staged(self, name: str, dtype: Any = np.uint8) -> npt.NDArray[Any]:
        """A tensor's place in page-locked memory."""
        return self._staging[name].view(dtype)

    def run(self, segment: int) -> None:
        """Queues a segment."""
        turn: AbstractContextManager[object] = nullcontext() if self._runs[segment] > 1 else SETTING_UP
        with turn:
            if self._capturable and self._runs[segment] == 1:
                self._capture(segment)
            self._runs[segment] += 1
            if segment in self._graphs:
                self._driver.launch_graph(self._graphs[segment], self._stream)
            else:
                self._queue(segment)

    def fetch(self, name: str, begin: int, end: int) -> npt.NDArray[np.uint8]:
        """Bytes of a tensor that is kept, once the last segment is done, through its place in page-locked memory."""
        fetched, place = np.empty(end - begin, np.uint8), self._staging[name]
        for at in range(0, fetched.size, place.size):
            piece = place[: min(place.size, fetched.size - at)]
            self._driver.download(piece, self._at[name] + begin + at, self._stream)
            self._driver.synchronise(self._stream)
            fetched[at : at + piece.size] = piece
        return fetched

    def profile(self) -> list[tuple[str, float]]:
        """Runs every operation once more on whatever is there: names and seconds, in order."""
        operations = [x for segment in self.program.segments for x in segment.operations]
        bound = [self._bound(x, self._stream) for x in operations]
        events = [self._driver.create_event() for _ in range(len(operations) + 1)]
        try:
            with delays(self._driver) as delay:
                delay(self._stream)
                self._driver.record(events[0], self._stream)
                for work, event in zip(bound, events[1:], strict=True):
                    work()
                    self._driver.record(event, self._stream)
                self._driver.synchronise(self._stream)
            times = map(self._driver.elapsed, events, events[1:])
            return [(_name_of(x), seconds) for x, seconds in zip(operations, times, strict=True)]
        finally:
            for event in events:
                self._driver.destroy_event(event)

    @property
    def captured(self) -> bool:
        """Whether all of it is launched as CUDA graphs."""
        return len(self._graphs) == len(self._segments)

    def close(self) -> None:
        """Lets go of graphs, events and executions."""
        for graph in self._graphs.values():
            self._driver.destroy_graph(graph)
        self._graphs = {}
        while self._events:
            self._driver.destroy_event(self._events.pop())
        for execution in self.program.executions():
            execution.close()

    def _queue(self, segment: int) -> None:
        for work in self._segments[segment]:
            work()

    def _capture(self, segment: int) -> None:
        """Records a segment; where a library does what cannot be recorded, nothing is from now on."""
        failure: BackendError | None = None
        graph = 0
        self._driver.begin_capture(self._stream)
        try:
            self._queue(segment)
        except BackendError as error:
            failure = error
        except BaseException:  # Ctrl-C: the stream must not stay as it is
            with suppress(BackendError):
                self._driver.destroy_graph(self._driver.end_capture(self._stream))
            raise
        try:
            graph = self._driver.end_capture(self._stream)
        except BackendError as error:
            failure = failure or error
        if failure is None:
            self._graphs[segment] = graph
            return
        if graph:
            self._driver.destroy_graph(graph)
        if isinstance(failure, (DeviceLostError, DeviceMemoryError)):
            raise failure
        self._capturable, self.refusal = False, failure

    def _queueing(self, segment: Segment, turns: Sequence[Turn]) -> list[Callable[[], None]]:
        """What queues a segment, in order."""
        works: list[Callable[[], None]] = []
        events: dict[int, int] = {}
        awaited = {number for turn in turns for number in turn.after}
        for number, (strand, turn) in enumerate(zip(segment.strands, turns, strict=True)):
            stream = self._streams[turn.stream]
            works += [partial(self._driver.wait, stream, events[earlier]) for earlier in turn.after]
            works += [self._bound(x, stream) for x in strand.operations]
            if number in awaited:
                events[number] = self._driver.create_event()
                self._events.append(events[number])
                works.append(partial(self._driver.record, events[number], stream))
        return works

    def _bound(self, operation: Operation, stream: int) -> Callable[[], None]:
        """An operation on its addresses."""
        at, driver = self._at, self._driver
        match operation:
            case GraphRun(_, inputs, outputs, execution):
                read, written = [at[name] for name in inputs], [at[name] for name in outputs]
                return partial(execution.enqueue, read, written, at[operation.scratch], stream)
            case Clear(name, size):
                return partial(driver.clear, at[name], size, stream)
            case Copy(name, size, up, begin):
                here, there = self._staging[name][begin : begin + size], at[name] + begin
                return (
                    partial(driver.upload, there, here, stream) if up else partial(driver.download, here, there, stream)
                )
            case Kernel():
                return partial(driver.launch, operation.launch(at), stream)


def _uses(
    program: Program, turns: Sequence[Sequence[Turn]]
) -> tuple[list[list[tuple[str, ...]]], list[frozenset[int]]]:
    """For `lay_out`: the tensors of each strand, by operation, and the strands before it, earlier segments' too."""
    uses: list[list[tuple[str, ...]]] = []
    before: list[frozenset[int]] = []
    for segment, each in zip(program.segments, turns, strict=True):
        begun = len(uses)
        for strand, turn in zip(segment.strands, each, strict=True):
            uses.append([program.tensors(x) for x in strand.operations])
            before.append(frozenset(range(begun)) | {begun + k for k in turn.before})
    before.append(frozenset(range(len(uses))))
    uses.append([tuple(program.kept)])
    return uses, before


def _name_of(operation: Operation) -> str:
    match operation:
        case GraphRun():
            return operation.role
        case Clear(name):
            return f"clear {name}"
        case Copy(name, up=up):
            return f"{'upload' if up else 'download'} {name}"
        case Kernel(name):
            return name
