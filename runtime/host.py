"""A bundle's steps on arrays of the host: an image to integers, and integers to an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from condic.errors import CondicError, InputError, OutOfMemoryError
from condic.runtime.arrays import Integers, Pixels, Tensor
from condic.runtime.backends import LoadedGraphs, is_whole
from condic.runtime.bitstream import GUARD, Flags, Limits, Stream
from condic.runtime.bundle import Bundle
from condic.runtime.canvas import Canvas, Rectangle
from condic.runtime.guard import GuardReader, GuardWriter, Rounding
from condic.runtime.latents import Coded, EntropyTables, decode_latent, encode_latent, give_hat
from condic.runtime.manifest import QUALITY_LEVELS, Kind, Manifest, Step
from condic.runtime.pictures import Picture, as_picture
from condic.runtime.pixels import PixelSource
from condic.runtime.tiles import Evaluation, Region
from condic.runtime.timings import Timings

Latents = dict[str, Integers]
T = TypeVar("T")

_SMALLER_TILES = (1024, 512)
"""Sides in pixels, where there is no memory for more."""


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
        limits: Limits | None = None,
        known: Mapping[str, Tensor] | None = None,
        rounding: GuardWriter | None = None,
        tile: int | None = None,
    ) -> Quantised:
        """An image as integers, computed on arrays of the host.

        `known` are tensors that need no computing; `rounding` sees what guarded latents round; `tile` overrides the
        codec's.
        """
        check_quality(quality)
        picture = as_picture(image, limits)
        evaluation = self.evaluation(picture, quality, timings or Timings(), tile)
        evaluation.kept.update(known or {})
        latents: list[Coded] = []
        rounding = rounding or GuardWriter()
        for step in self._bundle.manifest.encode:
            if step.op == "run":
                evaluation.note(step)
            else:
                latent = self._bundle.manifest.latent(step.target)
                latents.append(encode_latent(latent, evaluation, self._entropy, quality, rounding))
        guard = rounding.payload() if self._bundle.manifest.guarded else None
        return Quantised(picture, quality, tuple(latents), guard)

    def reconstruct(self, quantised: Quantised, timings: Timings | None = None, tile: int | None = None) -> Pixels:
        """What decoding will give, uint8 [H, W, 3], without coding anything; `tile` as in `quantise`."""
        height, width = quantised.picture.rgb.shape[:2]
        evaluation = self._evaluation(height, width, quantised.quality, timings or Timings(), tile)
        for latent in quantised.latents:
            give_hat(latent.name, latent.integers, evaluation)
        for step in self._bundle.manifest.decode:
            if step.op == "run":
                evaluation.note(step)
        canvas = Canvas(Rectangle(0, 0, width, height), Flags.NONE, evaluation.alignment)
        self._draw(evaluation, canvas, self._bundle.manifest.decode)
        return canvas.image()

    def begin_decoding(
        self, stream: Stream, kind: Kind, canvas: Canvas, timings: Timings, rounding: Rounding | None = None
    ) -> Callable[[], Latents]:
        """Decodes the latents that the steps of a kind need; gives a function that draws the image, for any thread.

        It must be called once at most, and gives the latents. `rounding` takes the place of the file's guard.
        """
        header, steps = stream.header, self._bundle.manifest.steps(kind)

        def begin(tile: int | None) -> Callable[[], Latents]:
            evaluation = self._evaluation(header.height, header.width, header.quality, timings, tile)
            integers = self._decode_latents(stream, kind, evaluation, rounding)

            def draw() -> Latents:
                self._draw(evaluation, canvas, steps)
                return integers

            return draw

        begun = [self.with_smaller_tiles(begin)]

        def draw() -> Latents:
            if not self._bundle.manifest.tiled:
                return self.with_smaller_tiles(lambda _: begun.pop()())
            with suppress(MemoryError):
                return begun.pop()()  # what it holds goes with it
            return self.with_smaller_tiles(lambda tile: begin(tile)(), _SMALLER_TILES)

        return draw

    def with_smaller_tiles(
        self, work: Callable[[int | None], T], tiles: Sequence[int | None] = (None, *_SMALLER_TILES)
    ) -> T:
        """What `work` gives with the usual tiles or, where memory runs out, smaller ones. Raises OutOfMemoryError."""
        tiles = tiles if self._bundle.manifest.tiled else tiles[:1]
        for tile in tiles:
            try:
                return work(tile)
            except MemoryError as error:
                if tile != tiles[-1]:
                    continue
                if isinstance(error, CondicError):
                    raise
                tried = f", not even in tiles of {tile} pixels a side" if tile else "; this model has no tiles"
                raise OutOfMemoryError(f"not enough memory{tried}") from error
        raise AssertionError

    def evaluation(self, picture: Picture, quality: int, timings: Timings, tile: int | None = None) -> Evaluation:
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

    def _evaluation(
        self, height: int, width: int, quality: int, timings: Timings, tile: int | None = None
    ) -> Evaluation:
        def run(role: str, inputs: Sequence[Tensor]) -> list[Tensor]:
            with timings.stage(role):
                return self._graphs.run(role, inputs)

        manifest = self._bundle.manifest
        rows, columns = (side + -side % manifest.alignment for side in (height, width))
        tile = tile or self._tile
        if self._graphs.backend.driver is not None:
            from condic.runtime.cuda.tiling import fitting_tile

            fitting = fitting_tile(manifest, (rows, columns), self._graphs.load)
            tile = min(filter(None, (tile, fitting)), default=None)
        evaluation = Evaluation(manifest, run, rows, columns, tile, timings)
        for name, table in self._bundle.tables.items():
            if name.startswith("quality."):
                evaluation.give(name, table[quality].astype(np.float32).reshape(1, -1, 1, 1))
        return evaluation


def check_quality(quality: int) -> None:
    """Raises InputError for what is no quality level."""
    if not is_whole(quality) or not 0 <= quality < QUALITY_LEVELS:
        raise InputError(f"quality {quality} is not a level in 0..{QUALITY_LEVELS - 1}")


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
