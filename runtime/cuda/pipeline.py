"""Images through programs on a device: pixels to the sections of latents, and back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.errors import BackendError, DeviceMemoryError, StreamError
from condic.kernels.device import RESULT
from condic.runtime.backends import LoadedGraphs
from condic.runtime.bitstream import Flags, Header
from condic.runtime.bundle import Bundle
from condic.runtime.cuda.driver import Driver
from condic.runtime.cuda.graph import DeviceGraph, device_graph
from condic.runtime.cuda.program import ChunkSite, Format, Program, Rows, build_program, runs_on_a_device
from condic.runtime.cuda.workspace import LoadedProgram, Workspace
from condic.runtime.latents import CHECKSUM, EntropyTables, check_checksum
from condic.runtime.pictures import Pixels
from condic.runtime.timings import Timings

WORKSPACES = 4
"""Images that are on the device at the same time, at most."""

Sections = list[bytes]
Payload = bytes | memoryview


@dataclass(frozen=True)
class Reconstruction:
    """`pixels`, uint8 [H, W, 1 or 3], and latents, int32 [C, H, W] in 1/16, by name."""

    pixels: Pixels
    latents: dict[str, npt.NDArray[np.int32]]


class DevicePipeline:
    """A bundle on a device. Threads may share it: each image has a workspace of its own while it is there."""

    def __init__(self, bundle: Bundle, graphs: LoadedGraphs, entropy: EntropyTables, driver: Driver) -> None:
        self._bundle, self._graphs, self._entropy, self._driver = bundle, graphs, entropy, driver
        self._rows = Rows.of(bundle.tables)
        self._idle: list[Workspace] = []
        self._free = threading.Semaphore(WORKSPACES)
        self._lock = threading.Lock()

    def begin_encoding(self, pixels: Pixels, quality: int, timings: Timings) -> Callable[[], Sections]:
        """Queues everything that the device does for an image, uint8 [H, W, 1 or 3]; gives a function for the rest.

        That waits for the device, once, and codes the symbols; gives the sections of all latents. It must be called,
        by any thread. Raises BackendError where the image cannot be coded like this: DeviceMemoryError, or no
        graph for its size.
        """
        height, width, channels = pixels.shape
        use = _Use(self, Format("encode", height, width, channels))
        try:
            with self._driver.entered(), timings.stage("pixels"):
                use.loaded.staged("pixels").reshape(pixels.shape)[:] = pixels
                use.loaded.staged("rows", np.float32)[:] = self._rows.levels[quality]
                use.loaded.run(0)
        except BaseException:
            use.end(failed=True)
            raise

        def finish() -> Sections:
            with use:
                with timings.stage("device"):
                    use.workspace.wait()
                with timings.stage("coder"):
                    return self._sections(use.loaded)

        return finish

    def decode(
        self, kind: str, header: Header, payloads: Sequence[Payload], timings: Timings, *, latents: bool
    ) -> Reconstruction:
        """Runs the steps of a kind (`decode`, `preview`) on a file's header and the payloads of its first latents.

        `latents`: whether to fetch them. Raises StreamError and IntegrityError as the host's decoder does, and
        BackendError as `begin_encoding`.
        """
        channels = 1 if header.flags & Flags.GREY else 3
        with _Use(self, Format(kind, header.height, header.width, channels)) as use:
            return self._decode(use, payloads, header.quality, timings, latents=latents)

    def profile(self, format: Format) -> list[tuple[str, float]]:
        """Seconds of every operation of a program, one at a time."""
        with _Use(self, format) as use:
            use.loaded.profile()  # libraries set themselves up
            return use.loaded.profile()

    def close(self) -> None:
        """Lets go of everything on the device but the graphs."""
        with self._driver.entered(), self._lock:
            while self._idle:
                self._idle.pop().close()

    def _sections(self, loaded: LoadedProgram) -> Sections:
        results = loaded.staged("results", RESULT)
        sections = []
        for name in dict.fromkeys(site.latent for site in loaded.program.sites):
            sites = [site for site in loaded.program.sites if site.latent == name]
            counts = [int(results[site.ordinal]["coded"]) for site in sites]
            chunks = [
                (loaded.staged(site.symbols, np.int16)[:n], loaded.staged(site.indexes)[:n])
                for site, n in zip(sites, counts, strict=True)
            ]
            checksums = b"".join(CHECKSUM.pack(int(results[site.ordinal]["checksum"])) for site in sites)
            sections.append(checksums + kernels.encode(self._entropy.coder, chunks))
        return sections

    def _decode(
        self, use: _Use, payloads: Sequence[Payload], quality: int, timings: Timings, *, latents: bool
    ) -> Reconstruction:
        loaded, program = use.loaded, use.loaded.program
        coded = {name: _Coded(name, program, payload, self._entropy) for name, payload in zip(
            program.latents, payloads, strict=True
        )}  # fmt: skip
        loaded.staged("rows", np.float32)[:] = self._rows.levels[quality]
        for number, segment in enumerate(program.segments):
            with timings.stage("device"):
                loaded.run(number)
                if segment.then is None and latents:
                    loaded.fetch_latents()
                use.workspace.wait()
            results = loaded.staged("results", RESULT)
            for latent in coded.values():
                latent.check(results, before=segment.then)
            if segment.then is not None:
                with timings.stage("coder"):
                    coded[segment.then.latent].decode(segment.then, loaded)
        for latent in coded.values():
            latent.finish()
        integers = {
            name: loaded.staged(f"{name}.latents", np.int32).reshape(shape).copy()
            for name, shape in program.latents.items()
            if latents
        }
        with timings.stage("pixels"):
            return Reconstruction(loaded.staged("pixels").reshape(program.image).copy(), integers)

    def _acquire(self, format: Format) -> tuple[Workspace, LoadedProgram]:
        """A workspace with the program for a format: an idle one that has it, else an idle one, else a new one."""
        self._free.acquire()
        try:
            with self._driver.entered():
                self._driver.load_kernels()
                with self._lock:
                    choice = [x for x in self._idle if x.has(format)] or self._idle
                    workspace = choice[-1] if choice else Workspace(self._driver)
                    if choice:
                        self._idle.remove(workspace)
                try:
                    return workspace, self._prepare(workspace, format)
                except BaseException:
                    self._discard(workspace)
                    raise
        except BaseException:
            self._free.release()
            raise

    def _prepare(self, workspace: Workspace, format: Format) -> LoadedProgram:
        try:
            return workspace.program(format, self._build)
        except DeviceMemoryError:
            with self._lock:  # what idle workspaces hold may be what is missing
                for each in self._idle:
                    each.clear()
            return workspace.program(format, self._build)

    def _build(self, format: Format) -> Program:
        def load(role: str) -> DeviceGraph:
            return device_graph(self._graphs.load(role))

        return build_program(self._bundle.manifest, self._rows, load, format)

    def _discard(self, workspace: Workspace) -> None:
        with suppress(BackendError):
            workspace.wait()
        with suppress(BackendError):
            workspace.close()

    def _give_back(self, workspace: Workspace, *, failed: bool) -> None:
        if failed:
            self._discard(workspace)
        else:
            with self._lock:
                self._idle.append(workspace)
        self._free.release()


def open_pipeline(bundle: Bundle, graphs: LoadedGraphs, entropy: EntropyTables) -> DevicePipeline | None:
    """The pipeline of a bundle on its backend's device; None where there is no device, or the codec needs the host."""
    driver = graphs.backend.driver
    if driver is None or not runs_on_a_device(bundle.manifest):
        return None
    return DevicePipeline(bundle, graphs, entropy, driver)


class _Use:
    """A workspace and a program for one image, given back at the end; after a failure the workspace is thrown away."""

    def __init__(self, pipeline: DevicePipeline, format: Format) -> None:
        self._pipeline = pipeline
        self.workspace, self.loaded = pipeline._acquire(format)

    def end(self, *, failed: bool) -> None:
        with self._pipeline._driver.entered():
            self._pipeline._give_back(self.workspace, failed=failed)

    def __enter__(self) -> _Use:
        self._context = self._pipeline._driver.entered()
        self._context.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            broken = kind is not None and not issubclass(kind, StreamError)  # a bad file breaks nothing
            self._pipeline._give_back(self.workspace, failed=broken)
        finally:
            self._context.__exit__(None, None, None)


class _Coded:
    """A latent's section while it is decoded on the host, chunk by chunk."""

    def __init__(self, name: str, program: Program, payload: Payload, tables: EntropyTables) -> None:
        self._name = name
        self._sites = [site for site in program.sites if site.latent == name]
        self._unchecked = list(self._sites)
        split = CHECKSUM.size * len(self._sites)
        if len(payload) < split:
            raise StreamError(f"section {name} is too short for its {len(self._sites)} checksums")
        self._checksums = payload[:split]
        with self._errors():
            self._decoder = kernels.Decoder(tables.coder, payload[split:])

    def decode(self, site: ChunkSite, loaded: LoadedProgram) -> None:
        """Decodes a chunk's symbols, with the tables that the device has found."""
        count = int(loaded.staged("results", RESULT)[site.ordinal]["coded"])
        with self._errors():
            symbols = self._decoder.decode(loaded.staged(site.indexes)[:count])
        loaded.staged(site.symbols, np.int16)[:count] = symbols

    def check(self, results: npt.NDArray[np.void], before: ChunkSite | None) -> None:
        """Compares the checksums of chunks that the device has decoded: those before one, or all."""
        while self._unchecked and (before is None or self._unchecked[0].ordinal < before.ordinal):
            site = self._unchecked.pop(0)
            stored = self._checksums[CHECKSUM.size * site.number : CHECKSUM.size * (site.number + 1)]
            check_checksum(
                int(results[site.ordinal]["checksum"]), stored, f"chunk {site.number} of latent {self._name}"
            )

    def finish(self) -> None:
        """After the last chunk."""
        with self._errors():
            self._decoder.finish()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise StreamError(f"section {self._name}: {error}") from error
