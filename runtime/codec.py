"""The codec: a bundle on a backend, between images and files."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from condic import kernels
from condic.errors import (
    BackendError,
    BundleError,
    DeviceMemoryError,
    InputError,
    SizeError,
    StreamError,
    is_whole,
    within_memory,
)
from condic.files import Source, named, read_source
from condic.runtime.arrays import Pixels
from condic.runtime.backends import BackendOptions, LoadedGraphs, open_graphs
from condic.runtime.bitstream import GUARD, MAGIC, Header, Limits, Section, Stream, kinds_of, read_stream, write_stream
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.canvas import REDUCTIONS, Canvas, Rectangle, reduced
from condic.runtime.guard import Rounding
from condic.runtime.host import HostPipeline, Latents, Quantised, check_quality
from condic.runtime.latents import EntropyTables
from condic.runtime.manifest import Kind, is_first_table
from condic.runtime.many import in_order
from condic.runtime.metadata import Metadata
from condic.runtime.pictures import Picture, as_picture, stored_without_loss
from condic.runtime.shipped import find_bundle
from condic.runtime.timings import Timings

if TYPE_CHECKING:
    from condic.runtime.cuda.pipeline import DevicePipeline


@dataclass(frozen=True)
class Decoded:
    """A decoded file: the image as it was given, its metadata, and the integer latents by name if they were asked for.

    `image` is uint8 [H, W] or [H, W, 2..4], a latent int32 [C, H, W] in 1/16.
    """

    image: Pixels
    metadata: Metadata
    latents: Latents

    def latents_sha256(self) -> str:
        """SHA-256 over all integer latents, in coding order, as little-endian int32: equal on every backend.

        Raises ValueError where they were not asked for.
        """
        if not self.latents:
            raise ValueError("this was decoded without its latents; ask for them (latents=True)")
        digest = hashlib.sha256()
        for latent in self.latents.values():
            digest.update(np.ascontiguousarray(latent, "<i4").tobytes())
        return digest.hexdigest()


class Codec:
    """A bundle opened on a backend. Safe to share between threads; holds sessions, no state of any image."""

    def __init__(
        self, bundle: Bundle, backend: str = "auto", options: BackendOptions | None = None, tile: int | None = None
    ) -> None:
        """Opens the backend (see `open_graphs`). Raises BackendError where it is missing (later: fails its test).

        `tile` is the side in pixels of the tiles that float graphs run in; by default images beyond 4K have tiles.
        """
        self.bundle = bundle
        self.graphs = open_graphs(bundle, backend, options)
        tables = bundle.tables
        try:
            coder = kernels.Tables(tables["cdf"], tables["radius"])
        except (ValueError, TypeError) as error:
            raise BundleError(f"{bundle.source}: unusable entropy tables: {error}") from error
        first = {name: tables[name].astype(np.float32) for name in filter(is_first_table, tables)}
        self._entropy = EntropyTables(coder, bundle.manifest.scales, first)
        self.host = HostPipeline(bundle, self.graphs, self._entropy, tile)
        """What there is for measurements, and for searches by size: the parts of coding one after the other."""
        self._device: DevicePipeline | None = None
        self._encoders = self._decoders = 1  # on the host a thread more, for the coder or the synthesis
        if self.graphs.backend.driver is not None:
            from condic.runtime.cuda.pipeline import WORKSPACES, open_pipeline

            host_coder = options is not None and options.host_coder
            self._device = open_pipeline(bundle, self.graphs, self._entropy, host_coder=host_coder)
            self._encoders, self._decoders = WORKSPACES - 1, WORKSPACES  # begun in the caller's thread, and not
        self.close = weakref.finalize(self, _close, self._device, self.graphs)
        """Releases what is on a device, at once; nothing can be coded afterwards. On the host it does nothing."""

    @property
    def backend(self) -> str:
        """The backend's name, library and version."""
        return f"{self.backend_name} ({self.graphs.backend.describe()})"

    @property
    def backend_name(self) -> str:
        """The backend's name."""
        return self.graphs.backend.name

    def load(self) -> None:
        """Loads every graph and what else a device needs, which encoding and decoding do when they come to it.

        Raises BackendError, also where a graph fails its known-answer test.
        """
        for graph in self.bundle.manifest.graphs:
            self.graphs.load(graph.role)
        if self._device is not None:
            self._device.load()

    def encode(self, image: Any, quality: int, timings: Timings | None = None, limits: Limits | None = None) -> bytes:
        """Compresses an image at a quality level 0..63: an array, a PIL image, or an image file (see `as_picture`).

        Raises InputError, and BackendError, which a lack of memory is too (OutOfMemoryError).
        """
        return self.begin_encoding(image, quality, timings, limits)()

    def encode_many(self, images: Iterable[Any], quality: int, limits: Limits | None = None) -> Iterator[bytes]:
        """`encode` for many images, in order: one is entropy coded while the next is analysed.

        Takes an image when there is room for it: a few are in memory, however many there are. An error comes in its
        image's place and is the end.
        """

        @within_memory()
        def begin(image: Any) -> Callable[[], bytes]:
            picture = as_picture(image, limits)
            if picture.alpha is not None:  # read again in the second half, when the caller's array may hold the next
                picture = replace(picture, alpha=picture.alpha.copy())
            return self.begin_encoding(picture, quality, None, limits)

        return in_order(begin, images, self._encoders)

    @within_memory()
    def begin_encoding(
        self, image: Any, quality: int, timings: Timings | None = None, limits: Limits | None = None
    ) -> Callable[[], bytes]:
        """The first half of `encode`, up to the entropy coder; gives a function for the rest, for any thread.

        It must be called, once: on a GPU, it gives the image's memory back. Both raise what `encode` does.
        """
        check_quality(quality)
        timings, picture = timings or Timings(), as_picture(image, limits)
        if self._device is not None:
            with suppress(DeviceMemoryError, SizeError):
                finish = self._device.begin_encoding(picture.colours(), quality, timings)
                return within_memory()(lambda: self._file(picture, quality, finish()))
        quantised = self.host.quantise(picture, quality, timings)
        return lambda: self.pack(quantised, timings)

    @within_memory()
    def pack(self, quantised: Quantised, timings: Timings | None = None) -> bytes:
        """The second half of `encode`: symbols to bytes. Raises OutOfMemoryError."""
        with (timings or Timings()).stage("coder"):
            payloads = [latent.section(self._entropy) for latent in quantised.latents]
        return self._file(quantised.picture, quantised.quality, payloads, quantised.guard)

    @within_memory()
    def _file(self, picture: Picture, quality: int, payloads: Sequence[bytes], guard: bytes | None = None) -> bytes:
        sections = [Section(k, payload) for k, payload in enumerate(payloads)]
        if guard is not None:
            sections.append(Section(GUARD, guard))
        sections += picture.sections
        height, width = picture.rgb.shape[:2]
        header = Header(width, height, quality, picture.flags, self.bundle.id, len(sections))
        return write_stream(header, sections)

    def decode(
        self,
        source: Source,
        timings: Timings | None = None,
        limits: Limits | None = None,
        region: Sequence[int] | None = None,
        begin_rounding: Callable[[], Rounding] | None = None,
        *,
        latents: bool = False,
    ) -> Decoded:
        """Decompresses a file, given as bytes, by path, or open for reading.

        `region` is left, top, width and height in pixels of the part that is wanted, by default everything. It has the
        pixels that decoding everything gives there. The latents are decoded whole whatever it is, since the entropy
        coder knows no places; the synthesis runs for the tiles that have a share in it.

        What `begin_rounding` makes takes the place of the file's guard: for measurements. `latents` asks for the
        integer latents too, several times as many bytes as the image.

        Raises InputError if the file cannot be read or has no such region, StreamError or IntegrityError for what is
        wrong with it, BundleError if it was made with another model, BackendError as `encode`.
        """
        timings = timings or Timings()
        return _named_begin(
            source,
            lambda data: self._begin(
                data, "decode", timings, limits, region, begin_rounding=begin_rounding, latents=latents
            ),
        )()

    def decode_many(
        self, sources: Iterable[Source], limits: Limits | None = None, *, latents: bool = False
    ) -> Iterator[Decoded]:
        """`decode` for many files, in order: one is drawn while the entropy decoder works on the next.

        Takes a file when there is room for it, as `encode_many`.
        """

        def begin(source: Source) -> Callable[[], Decoded]:
            # bytes: a copy of what can change, which the second half reads when it may hold the next file.
            return _named_begin(
                source, lambda data: self._begin(bytes(data), "decode", Timings(), limits, latents=latents)
            )

        return in_order(begin, sources, self._decoders)

    def preview(
        self, source: Source, timings: Timings | None = None, limits: Limits | None = None, reduction: int = 1,
        *, large: bool = False, latents: bool = False,
    ) -> Decoded:  # fmt: skip
        """Like `decode`, from the first latents alone (the bundle's preview steps), and perhaps a smaller image.

        `large` asks for one of full size where the model makes a smaller one; InputError where it does not.

        With a `reduction` of n (8, 16 or 32), blocks of n x n pixels become one, their mean: the image has ceil(H / n)
        rows and ceil(W / n) columns. Raises what `decode` does; InputError for another reduction, or one that does not
        divide the model's alignment.
        """
        if not is_whole(reduction) or reduction not in (1, *REDUCTIONS):
            raise InputError(f"reduction {reduction!r}: give one of {', '.join(map(str, REDUCTIONS))}")
        if large and not self.bundle.manifest.large_preview:
            raise InputError(f"{self.bundle.source}: this model has one preview only; leave out the super-resolved one")
        kind: Kind = "large_preview" if large else "preview"
        timings = timings or Timings()
        return _named_begin(
            source, lambda data: self._begin(data, kind, timings, limits, None, reduction, latents=latents)
        )()

    def _begin(
        self, data: bytes | memoryview, kind: Kind, timings: Timings, limits: Limits | None,
        region: Sequence[int] | None = None, reduction: int = 1, *,
        begin_rounding: Callable[[], Rounding] | None = None, latents: bool,
    ) -> Callable[[], Decoded]:  # fmt: skip
        """Reads a file and, on the host, decodes its latents; gives a function for the rest, for any thread.

        On a device all is done in that rest, which the threads of `decode_many` have side by side.
        """
        stream = read_stream(data, limits)
        self._check_fits(stream)
        smaller = self.bundle.manifest.image_spec(self.bundle.manifest.steps(kind)).stride  # of a preview
        canvas = self._canvas(stream.header, smaller, region, reduction)

        def finish(integers: Latents) -> Decoded:
            alpha, metadata = stored_without_loss(stream, limits)
            if alpha is not None:
                canvas.draw_alpha(reduced(alpha[:, :, None], smaller)[:, :, 0])
            return Decoded(canvas.image(), metadata, integers if latents else {})

        if self.graphs.backend.driver is None:
            draw = self.host.begin_decoding(stream, kind, canvas, timings, begin_rounding)
            return lambda: finish(draw())

        def on_device() -> Latents:
            if self._device is not None:
                with suppress(DeviceMemoryError, SizeError):
                    return self._device.decode(kind, stream, canvas.draw_pixels, timings, latents=latents)
            return self.host.begin_decoding(stream, kind, canvas, timings, begin_rounding)()

        return lambda: finish(on_device())

    def _canvas(self, header: Header, smaller: int, region: Sequence[int] | None, reduction: int) -> Canvas:
        """What a file is drawn on by steps that make an image `smaller` times smaller, and reduced further."""
        if reduction != 1 and reduction % smaller:
            raise InputError(f"reduction {reduction}: this model's preview is {smaller} times smaller by itself")
        if self.bundle.manifest.alignment % reduction:
            unit = self.bundle.manifest.alignment
            raise InputError(
                f"reduction {reduction}: this model computes in blocks of {unit} pixels, which it does not divide"
            )
        wanted = Rectangle.within(region, header.width, header.height).reduced(smaller)
        return Canvas(wanted, header.flags, self.bundle.manifest.alignment // smaller, max(1, reduction // smaller))

    def _check_fits(self, stream: Stream) -> None:
        if stream.header.bundle_id != self.bundle.id:
            raise BundleError(
                f"the file was made with model {stream.header.bundle_id.hex()}, this is {self.bundle.id.hex()} "
                f"({self.bundle.manifest.name}); give its bundle as model (--model)"
            )
        expected = set(range(len(self.bundle.manifest.latents))) | ({GUARD} if self.bundle.manifest.guarded else set())
        if {s.kind for s in stream.sections} - kinds_of(stream.header.flags) != expected:
            raise StreamError("the file does not have the sections that its model calls for, and these alone")


def _named_begin(source: Source, begin: Callable[[bytes | memoryview], Callable[[], Decoded]]) -> Callable[[], Decoded]:
    """What `begin` makes of a source's bytes; errors of both halves name the source."""
    data = read_source(source, MAGIC)
    with named(source):
        finish = begin(data)

    def finish_named() -> Decoded:
        with named(source):
            return finish()

    return finish_named


def _close(device: DevicePipeline | None, graphs: LoadedGraphs) -> None:
    with suppress(BackendError):  # a GPU that was lost has nothing to give back
        if device is not None:
            device.close()
        graphs.close()


def load_codec(model: str, backend: str = "auto", threads: int = 0) -> Codec:
    """A shipped model (by name) or a bundle (by path) on a backend; `threads` 0 lets it choose. Raises CondicError."""
    return Codec(read_bundle(find_bundle(model)), backend, BackendOptions(threads=threads))
