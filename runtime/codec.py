"""The codec: executes a bundle's step lists between pixels and bytes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from condic import kernels
from condic.errors import BundleError, InputError
from condic.runtime.backends import BackendOptions, LoadedGraphs, open_backend
from condic.runtime.bitstream import ALPHA, Flags, Header, Limits, Section, Stream, read_stream, write_stream
from condic.runtime.bundle import Bundle
from condic.runtime.latents import (
    Coded,
    EntropyTables,
    LatentState,
    RunGraph,
    Tensors,
    decode_latent,
    encode_latent,
    encode_section,
)
from condic.runtime.manifest import QUALITY_LEVELS, Step
from condic.runtime.pixels import (
    Picture,
    Pixels,
    as_array,
    as_picture,
    from_tensor,
    pack_alpha,
    to_tensor,
    unpack_alpha,
)


@dataclass
class Timings:
    """Seconds per stage, summed: graph roles, `coder`, `pixels`."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Decoded:
    """A decoded file: the image as it was given, and the integer latents by name, int32 [C, H, W] in 1/16."""

    image: Pixels
    latents: dict[str, npt.NDArray[np.int32]]

    def latents_sha256(self) -> str:
        """SHA-256 over all integer latents, in coding order, as little-endian int32: equal on every backend."""
        digest = hashlib.sha256()
        for latent in self.latents.values():
            digest.update(np.ascontiguousarray(latent, "<i4").tobytes())
        return digest.hexdigest()


class Codec:
    """A bundle opened on a backend. Safe to share between threads; holds sessions, no state of any image."""

    def __init__(self, bundle: Bundle, backend: str = "ort", options: BackendOptions | None = None) -> None:
        """Graphs load when first run. Raises BackendError where the backend is missing (later: fails its test)."""
        self.bundle = bundle
        self._backend = open_backend(backend, options)
        self.graphs = LoadedGraphs(bundle, self._backend)
        tables = bundle.tables
        try:
            coder = kernels.Tables(tables["cdf"], tables["radius"])
        except (ValueError, TypeError) as error:
            raise BundleError(f"{bundle.source}: unusable entropy tables: {error}") from error
        first = {name: tables[name].astype(np.float32) for name in tables if name.startswith("first.")}
        self._entropy = EntropyTables(coder, bundle.manifest.scales, first)

    @property
    def backend(self) -> str:
        """The backend's name, library and version."""
        return f"{self._backend.name} ({self._backend.describe()})"

    @property
    def backend_name(self) -> str:
        """The backend's name."""
        return self._backend.name

    def encode(self, image: Any, quality: int, timings: Timings | None = None, limits: Limits | None = None) -> bytes:
        """Compresses an image (see `as_picture`) at a quality level 0..63. Raises InputError."""
        if not 0 <= quality < QUALITY_LEVELS:
            raise InputError(f"quality {quality} is not in 0..{QUALITY_LEVELS - 1}")
        timings, manifest = timings or Timings(), self.bundle.manifest
        picture = as_picture(image)
        height, width = picture.rgb.shape[:2]
        (limits or Limits()).check(width, height, InputError)
        with timings.stage("pixels"):
            tensors = self._tensors(quality) | {"image": to_tensor(picture.rgb, manifest.alignment)}
        size = tensors["image"].shape[2], tensors["image"].shape[3]
        coded: list[tuple[Coded, bytes]] = []
        run = self._runner(timings)
        for step in manifest.encode:
            if step.op == "run":
                self._run(step, tensors, run)
                continue
            latent = manifest.latent(step.target)
            y = np.ascontiguousarray(tensors[f"{latent.name}.y"])
            _, symbols, checksums = encode_latent(latent, y, self._entropy, quality, tensors, run, size)
            coded.append((symbols, checksums))
        with timings.stage("coder"):
            sections = [
                Section(kind, encode_section(symbols, checksums, self._entropy))
                for kind, (symbols, checksums) in enumerate(coded)
            ]
        if picture.alpha is not None:
            sections.append(Section(ALPHA, pack_alpha(picture.alpha)))
        header = Header(width, height, quality, picture.flags, self.bundle.id, len(sections))
        return write_stream(header, sections)

    def decode(self, data: bytes | memoryview, timings: Timings | None = None, limits: Limits | None = None) -> Decoded:
        """Decompresses a file.

        Raises StreamError or IntegrityError for what is wrong with it, BundleError if it was made with another model.
        """
        return self._decode(data, "decode", timings or Timings(), limits)

    def preview(
        self, data: bytes | memoryview, timings: Timings | None = None, limits: Limits | None = None
    ) -> Decoded:
        """Like `decode`, from the first latents alone (the bundle's preview steps)."""
        return self._decode(data, "preview", timings or Timings(), limits)

    def _decode(self, data: bytes | memoryview, kind: str, timings: Timings, limits: Limits | None) -> Decoded:
        stream = read_stream(data, limits)
        self._check_fits(stream)
        header, manifest = stream.header, self.bundle.manifest
        size = _padded(header.height, manifest.alignment), _padded(header.width, manifest.alignment)
        tensors, states = self._tensors(header.quality), list[LatentState]()
        steps: tuple[Step, ...] = getattr(manifest, kind)
        run = self._runner(timings)
        for step in steps:
            if step.op == "run":
                self._run(step, tensors, run)
                continue
            latent = manifest.latent(step.target)
            payload = stream.section(len(states)).payload
            states.append(decode_latent(latent, payload, self._entropy, header.quality, tensors, run, size))
        with timings.stage("pixels"):
            rgb = from_tensor(tensors["image"], header.height, header.width)
            alpha = None
            if header.flags & Flags.ALPHA:
                alpha = unpack_alpha(stream.section(ALPHA).payload, header.height, header.width)
            image = as_array(Picture(rgb, alpha, bool(header.flags & Flags.GREY)))
        return Decoded(image, {state.latent.name: state.integers for state in states})

    def _check_fits(self, stream: Stream) -> None:
        if stream.header.bundle_id != self.bundle.id:
            raise BundleError(
                f"the file was made with model {stream.header.bundle_id.hex()}, this is {self.bundle.id.hex()} "
                f"({self.bundle.manifest.codec}-{self.bundle.manifest.preset}); give its bundle with --model"
            )

    def _tensors(self, quality: int) -> Tensors:
        return {
            name: table[quality].astype(np.float32).reshape(1, -1, 1, 1)
            for name, table in self.bundle.tables.items()
            if name.startswith("quality.")
        }

    def _runner(self, timings: Timings) -> RunGraph:
        def run(role: str, inputs: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
            with timings.stage(role):
                return self.graphs.run(role, inputs)

        return run

    @staticmethod
    def _run(step: Step, tensors: Tensors, run: RunGraph) -> None:
        outputs = run(step.target, [tensors[name] for name in step.inputs])
        tensors.update(zip(step.outputs, outputs, strict=True))


def _padded(side: int, alignment: int) -> int:
    return side + -side % alignment
