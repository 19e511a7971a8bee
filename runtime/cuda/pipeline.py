"""Images through programs on a device: pixels to the sections of latents, and back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from condic.errors import BackendError, DeviceMemoryError, StreamError
from condic.kernels.device import DeviceTables, tables_image
from condic.runtime.arrays import Integers, Pixels
from condic.runtime.backends import LoadedGraphs, not_finite
from condic.runtime.bitstream import Flags, Stream
from condic.runtime.bundle import Bundle
from condic.runtime.cuda.build import build_program, codes_on_a_device, runs_on_a_device
from condic.runtime.cuda.driver import Driver
from condic.runtime.cuda.graph import DeviceGraph, device_graph
from condic.runtime.cuda.program import NOT_FINITE, Program, ProgramKey, Rows
from condic.runtime.cuda.sections import DeviceDecoding, HostDecoding, Payload, coded_on_device, coded_on_host
from condic.runtime.cuda.workspace import LoadedProgram, Workspace
from condic.runtime.latents import EntropyTables
from condic.runtime.manifest import Kind
from condic.runtime.timings import Timings

WORKSPACES = 4
"""Images that are on the device at the same time, at most."""


class DevicePipeline:
    """A bundle on a device. Threads may share it: each image has a workspace of its own while it is there."""

    def __init__(
        self, bundle: Bundle, graphs: LoadedGraphs, entropy: EntropyTables, driver: Driver, *, host_coder: bool
    ) -> None:
        """`host_coder`: the host does the entropy coding."""
        self._bundle, self._graphs, self._entropy, self._driver = bundle, graphs, entropy, driver
        self.host_coder = host_coder or not codes_on_a_device(bundle.manifest)
        self._rows = Rows.of(bundle.tables)
        self._coder: DeviceTables | None = None
        self._idle: list[Workspace] = []
        self._free = threading.Semaphore(WORKSPACES)
        self._lock = threading.Lock()

    def begin_encoding(self, pixels: Pixels, quality: int, timings: Timings) -> Callable[[], list[bytes]]:
        """Queues everything that the device does for an image, uint8 [H, W, 1 or 3]; gives a function for the rest.

        That waits for the device, once, and gives the sections of all latents. It must be called, by any thread, and
        reads nothing of the image.
        Raises DeviceMemoryError and SizeError where the image cannot be coded like this, and other BackendErrors.
        """
        height, width, channels = pixels.shape
        with self._driver.entered(), ExitStack() as begun:
            key = ProgramKey("encode", height, width, channels, self.host_coder)
            workspace, loaded = begun.enter_context(self._held(key))
            with timings.stage("pixels"):
                loaded.staged("pixels").reshape(pixels.shape)[:] = pixels
                loaded.staged("rows", np.float32)[:] = self._rows.levels[quality]
                loaded.run(0)
            held = begun.pop_all()

        def finish() -> list[bytes]:
            with self._driver.entered(), held:
                with timings.stage("device"):
                    workspace.wait()
                self._check_finite(loaded)
                with timings.stage("coder"):
                    latents, tables = loaded.program.latents, self._entropy.coder
                    if self.host_coder:
                        return [coded_on_host(latent, loaded, tables) for latent in latents]
                    return [coded_on_device(latent, loaded) for latent in latents]

        return finish

    def decode(
        self, kind: Kind, stream: Stream, draw: Callable[[Pixels], None], timings: Timings, *, latents: bool
    ) -> dict[str, Integers]:
        """Runs the steps of a kind on a file's header and the sections of its first latents.

        `draw` is given the pixels, uint8 [H, W, 1 or 3], in memory that is only lent. Gives the latents, int32
        [C, H, W] in 1/16, by name, if `latents` asks for them. Raises StreamError and IntegrityError for what is wrong
        with the sections, and BackendErrors as `begin_encoding`.
        """
        header, steps = stream.header, self._bundle.manifest.steps(kind)
        sections = [stream.section(k).payload for k in range(sum(step.op == "code" for step in steps))]
        channels = 1 if header.flags & Flags.GREY else 3
        for host_coder in (False, True):
            key = ProgramKey(kind, header.height, header.width, channels, host_coder or self.host_coder)
            with self._driver.entered(), self._held(key) as (workspace, loaded):
                loaded.staged("rows", np.float32)[:] = self._rows.levels[header.quality]
                if key.host_coder:
                    self._decode_on_host(workspace, loaded, sections, timings)
                elif not self._decode_on_device(workspace, loaded, sections, timings):
                    continue
                self._check_finite(loaded)
                return _drawn(loaded, draw, timings, latents=latents)
        raise AssertionError

    def load(self) -> None:
        """Loads the kernels and the coder's tables."""
        with self._driver.entered(), self._lock:
            self._load()

    def profile(self, key: ProgramKey) -> list[tuple[str, float]]:
        """Seconds of every operation of a program, one at a time."""
        with self._driver.entered(), self._held(key) as (_, loaded):
            loaded.profile()  # libraries set themselves up
            return loaded.profile()

    def close(self) -> None:
        """Lets go of everything on the device but the graphs."""
        with self._driver.entered(), self._lock:
            while self._idle:
                self._idle.pop().close()
            if self._coder is not None:
                self._driver.release(self._coder.address)
            self._coder = None

    def _decode_on_device(
        self, workspace: Workspace, loaded: LoadedProgram, sections: Sequence[Payload], timings: Timings
    ) -> bool:
        """One wait, at the end. False, and nothing done, where payloads are larger than what is made room for."""
        coded = [DeviceDecoding(*pair) for pair in zip(loaded.program.latents, sections, strict=True)]
        if not all(each.fits for each in coded):
            return False
        for each in coded:
            each.stage(loaded)
        with timings.stage("device"):
            loaded.run(0)
            workspace.wait()
        for each in coded:
            each.finish(loaded)
        return True

    def _decode_on_host(
        self, workspace: Workspace, loaded: LoadedProgram, sections: Sequence[Payload], timings: Timings
    ) -> None:
        """One wait for each chunk, and one at the end."""
        tables = self._entropy.coder
        coded = [HostDecoding(*pair, tables) for pair in zip(loaded.program.latents, sections, strict=True)]
        by_name = {each.latent.name: each for each in coded}
        for number, segment in enumerate(loaded.program.segments):
            with timings.stage("device"):
                loaded.run(number)
                workspace.wait()
            for each in coded:
                each.check(loaded, before=segment.then)
            if segment.then is not None:
                with timings.stage("coder"):
                    by_name[segment.then.latent].decode(segment.then, loaded)
        for each in coded:
            each.finish()

    def _check_finite(self, loaded: LoadedProgram) -> None:
        """Raises BackendError if what the graphs gave last was not."""
        if loaded.staged(NOT_FINITE, np.uint32)[0]:
            raise not_finite("the model", self._graphs.backend.name)

    @contextmanager
    def _held(self, key: ProgramKey) -> Iterator[tuple[Workspace, LoadedProgram]]:
        """A workspace for one image, with the program for a key; to be entered and left with the driver entered.

        After a failure the workspace is thrown away, but for a StreamError's: a bad file breaks nothing.
        """
        with self._free:
            with self._lock:
                self._load()
                choice = [x for x in self._idle if x.has(key)] or self._idle
                workspace = choice[-1] if choice else Workspace(self._driver)
                if choice:
                    self._idle.remove(workspace)
            try:
                yield workspace, self._prepare(workspace, key)
            except StreamError:
                self._put_back(workspace)
                raise
            except BaseException:
                with suppress(BackendError):
                    workspace.wait()
                with suppress(BackendError):
                    workspace.close()
                raise
            self._put_back(workspace)

    def _prepare(self, workspace: Workspace, key: ProgramKey) -> LoadedProgram:
        try:
            return workspace.program(key, self._build)
        except DeviceMemoryError:
            with self._lock:  # what idle workspaces and buffers hold may be what is missing
                for each in self._idle:
                    each.clear()
            self._driver.buffers.clear()
            return workspace.program(key, self._build)

    def _build(self, key: ProgramKey) -> Program:
        def load(role: str) -> DeviceGraph:
            return device_graph(self._graphs.load(role))

        return build_program(self._bundle.manifest, self._rows, self._coder, load, key)

    def _load(self) -> None:
        """Kernels and the coder's tables, once."""
        self._driver.load_kernels()
        if self._coder is not None or self.host_coder:
            return
        image = np.frombuffer(tables_image(self._entropy.coder), np.uint8)
        address, staging, stream = 0, self._driver.allocate_pinned(image.size), self._driver.create_stream()
        try:
            address = self._driver.allocate(image.size)
            staging[:] = image
            self._driver.upload(address, staging, stream)
            self._driver.synchronise(stream)
        finally:
            self._driver.destroy_stream(stream)
            self._driver.release_pinned(staging)
        self._coder = DeviceTables(address, self._entropy.coder)

    def _put_back(self, workspace: Workspace) -> None:
        with self._lock:
            self._idle.append(workspace)


def open_pipeline(
    bundle: Bundle, graphs: LoadedGraphs, entropy: EntropyTables, *, host_coder: bool
) -> DevicePipeline | None:
    """The pipeline of a bundle on its backend's device; None where there is no device, or the codec needs the host."""
    driver = graphs.backend.driver
    if driver is None or not runs_on_a_device(bundle.manifest):
        return None
    return DevicePipeline(bundle, graphs, entropy, driver, host_coder=host_coder)


def _drawn(
    loaded: LoadedProgram, draw: Callable[[Pixels], None], timings: Timings, *, latents: bool
) -> dict[str, Integers]:
    """Draws what has been decoded, and gives the latents."""
    program = loaded.program
    with timings.stage("pixels"):
        draw(loaded.staged("pixels").reshape(program.image))
    return {
        x.name: loaded.fetch(x.tensor("latents"), 0, 4 * int(np.prod(x.shape))).view(np.int32).reshape(x.shape)
        for x in program.latents
        if latents
    }
