"""A bundle's steps on arrays of the host: an image to integers, and integers to an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from condic.errors import CondicError, InputError, OutOfMemoryError, is_whole
from condic.runtime.arrays import Integers, Pixels, Tensor
from condic.runtime.backends import LoadedGraphs
from condic.runtime.bitstream import GUARD, Flags, Stream
from condic.runtime.bundle import Bundle
from condic.runtime.canvas import Canvas, Rectangle
from condic.runtime.guard import GuardReader, GuardWriter, Rounding
from condic.runtime.latents import Coded, EntropyTables, decode_latent, encode_latent, give_hat
from condic.runtime.manifest import QUALITY_LEVELS, Kind, Manifest, Step, is_quality_table
from condic.runtime.pictures import Picture, as_picture
from condic.runtime.pixels import PixelSource
from condic.runtime.tiles import Evaluation, Region
from condic.runtime.timings import Timings

Latents = dict[str, Integers]
T = TypeVar("T")

_SMALLER_TILES = (1024, 512)
"""Sides in pixels, for where there is no memory for more."""


@dataclass(frozen=True)
class Quantised:
    """An image as integers, before the entropy coder; latents in coding order, and the guard if there is one."""

    picture: Picture
    quality: int
    latents: tuple[Coded, ...]
    guard: bytes | None


class HostPipeline:
    """A bundle on the host, or on a backend's graphs one after the other. Holds no state of any image."""

    def __init__(self, bundle: Bundle, graphs: LoadedGraphs, entropy: EntropyTables, tile: int | None) -> None:
        """`tile`: the side in pixels of the tiles that float graphs run in; by default images beyond 4K have tiles."""
        self._bundle, self._graphs, self._entropy, self._tile = bundle, graphs, entropy, tile

    def quantise(
        self,
        image: Any,
        quality: int,
        timings: Timings | None = None,
        known: Mapping[str, Tensor] | None = None,
        begin_rounding: Callable[[], GuardWriter] = GuardWriter,
    ) -> Quantised:
        """An image (see `as_picture`) as integers, computed on arrays of the host.

        `known` are whole tensors that need no computing. What `begin_rounding` makes sees what guarded latents round;
        another one does where memory runs out and all is done again by smaller tiles. Raises InputError for what is
        no image and no level, OutOfMemoryError and other BackendErrors.
        """
        check_quality(quality)
        picture, manifest = as_picture(image), self._bundle.manifest

        def work(tile: int | None) -> Quantised:
            evaluation = self._evaluation_of(picture, quality, timings or Timings(), tile)
            evaluation.kept.update(known or {})
            latents, rounding = list[Coded](), begin_rounding()
            for step in manifest.encode:
                if step.op == "run":
                    evaluation.note(step)
                else:
                    latent = manifest.latent(step.target)
                    latents.append(encode_latent(latent, evaluation, self._entropy, quality, rounding))
            return Quantised(picture, quality, tuple(latents), rounding.payload() if manifest.guarded else None)

        return self._within_memory(work)

    def reconstruct(self, quantised: Quantised, timings: Timings | None = None) -> Pixels:
        """What decoding will give, uint8 [H, W, 3], without coding anything. Raises BackendError."""
        height, width = quantised.picture.rgb.shape[:2]
        steps = self._bundle.manifest.decode

        def work(tile: int | None) -> Pixels:
            evaluation = self._evaluation(height, width, quantised.quality, timings or Timings(), tile)
            for latent in quantised.latents:
                give_hat(latent.name, latent.integers, evaluation)
            for step in steps:
                if step.op == "run":
                    evaluation.note(step)
            canvas = Canvas(Rectangle(0, 0, width, height), Flags.NONE, evaluation.alignment)
            self._draw(evaluation, canvas, steps)
            return canvas.image()

        return self._within_memory(work)

    def output_of(
        self, step: Step, picture: Picture, given: Mapping[str, Tensor], timings: Timings | None = None
    ) -> Tensor:
        """The first output of a step over a whole picture, float32 [1, C, H, W], from the image and tensors `given`.

        These have no extent, as rows of tables. Raises BackendError.
        """

        def work(tile: int | None) -> Tensor:
            evaluation = self._evaluation_of(picture, 0, timings or Timings(), tile)
            for name, values in given.items():
                evaluation.give(name, values)
            evaluation.note(step)
            return evaluation.keep(step.outputs[0])

        return self._within_memory(work)

    def begin_decoding(
        self, stream: Stream, kind: Kind, canvas: Canvas, timings: Timings,
        begin_rounding: Callable[[], Rounding] | None = None,
    ) -> Callable[[], Latents]:  # fmt: skip
        """Decodes the latents that the steps of a kind need; gives a function that draws the image, for any thread.

        It must be called once at most, and gives the latents. What `begin_rounding` makes takes the place of the file's
        guard, as in `quantise`. Both raise StreamError, IntegrityError and BackendError.
        """
        header, steps = stream.header, self._bundle.manifest.steps(kind)

        def begin(tile: int | None) -> tuple[Evaluation, Latents]:
            evaluation = self._evaluation(header.height, header.width, header.quality, timings, tile)
            return evaluation, self._decode_latents(stream, kind, evaluation, begin_rounding and begin_rounding())

        begun = [self._within_memory(begin)]

        def draw(tile: int | None) -> Latents:
            evaluation, integers = begun.pop() if begun else begin(tile)  # what the first try held is gone
            self._draw(evaluation, canvas, steps)
            return integers

        return lambda: self._within_memory(draw)

    def _within_memory(self, work: Callable[[int | None], T]) -> T:
        """What `work` gives with the usual tiles (None) or, where memory runs out, smaller ones.

        Raises OutOfMemoryError.
        """
        smaller = [side for side in _SMALLER_TILES if side < (self._tile or math.inf)]
        tiles = [None, *smaller] if self._bundle.manifest.tiled else [None]
        for tile in tiles:
            try:
                return work(tile)
            except MemoryError as error:
                if tile != tiles[-1]:
                    continue
                if isinstance(error, CondicError):
                    raise
                side = tile or self._tile
                tried = f", not even in tiles of {side} pixels a side" if side else "; this model has no tiles"
                raise OutOfMemoryError(f"not enough memory{tried}") from error
        raise AssertionError

    def _evaluation_of(self, picture: Picture, quality: int, timings: Timings, tile: int | None) -> Evaluation:
        """The tensors of a picture at a level, before any step of encoding."""
        height, width = picture.rgb.shape[:2]
        evaluation = self._evaluation(height, width, quality, timings, tile)
        source = PixelSource(picture.rgb, self._bundle.manifest.alignment)

        def pixels(region: Region) -> Tensor:
            with timings.stage("pixels"):
                return source.tensor(region)

        evaluation.sources["image"] = pixels
        return evaluation

    def _decode_latents(self, stream: Stream, kind: Kind, evaluation: Evaluation, rounding: Rounding | None) -> Latents:
        """Those that the steps of a kind code; every `run` step is noted down."""
        manifest, integers = self._bundle.manifest, Latents()
        guard = _guard(stream, evaluation, manifest)
        for step in manifest.steps(kind):
            if step.op == "run":
                evaluation.note(step)
            else:
                latent = manifest.latent(step.target)
                payload = stream.section(len(integers)).payload
                integers[latent.name] = decode_latent(
                    latent, payload, evaluation, self._entropy, stream.header.quality, rounding or guard
                )
        if kind == "decode" and rounding is None:
            guard.finish()
        return integers

    def _draw(self, evaluation: Evaluation, canvas: Canvas, steps: tuple[Step, ...]) -> None:
        image = self._bundle.manifest.image_spec(steps)
        for tile in evaluation.tiles(canvas.wanted.region(evaluation.alignment // image.stride)):
            tensor = evaluation.get("image", image, tile)
            with evaluation.timings.stage("pixels"):
                canvas.draw(tensor, tile)

    def _evaluation(self, height: int, width: int, quality: int, timings: Timings, tile: int | None) -> Evaluation:
        def run(role: str, inputs: Sequence[Tensor]) -> list[Tensor]:
            with timings.stage(role):
                return self._graphs.run(role, inputs)

        manifest = self._bundle.manifest
        rows, columns = size = manifest.padded(height, width)
        tile = tile or self._tile
        if self._graphs.backend.driver is not None:
            from condic.runtime.cuda.tiling import fitting_tile

            fitting = fitting_tile(manifest, size, self._graphs.load)
            tile = min(filter(None, (tile, fitting)), default=None)
        evaluation = Evaluation(manifest, run, rows, columns, tile, timings)
        for name in filter(is_quality_table, self._bundle.tables):
            evaluation.give(name, self.quality_row(name, quality))
        return evaluation

    def quality_row(self, name: str, quality: int) -> Tensor:
        """A quality table's row for a level, as graphs take it: float32 [1, C, 1, 1]."""
        row: Tensor = self._bundle.tables[name][quality].astype(np.float32).reshape(1, -1, 1, 1)
        return row


def check_quality(quality: int) -> None:
    """Raises InputError for what is no quality level."""
    if not is_whole(quality) or not 0 <= quality < QUALITY_LEVELS:
        raise InputError(f"quality {quality!r} is not a level in 0..{QUALITY_LEVELS - 1}")


def _guard(stream: Stream, evaluation: Evaluation, manifest: Manifest) -> GuardReader:
    """The file's guard. Raises StreamError if it notes more values than there can be."""
    if not manifest.guarded:
        return GuardReader(b"\0")
    elements = (
        latent.channels * math.prod(side // latent.stride for side in evaluation.size)
        for latent in manifest.latents
        if latent.guard
    )
    return GuardReader(stream.section(GUARD).payload, 3 * sum(elements))  # a mean, a scale index and a residual each
