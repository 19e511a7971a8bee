"""What coding one image at many levels needs to compute only once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from condic.runtime.arrays import Tensor
from condic.runtime.codec import Codec
from condic.runtime.manifest import QUALITY_LEVELS, Step
from condic.runtime.pictures import Picture
from condic.runtime.timings import Timings


class LevelIndependent:
    """Latents of an image before their gain: the tensors that a graph makes from the image and scales by the level.

    Whether a graph does so is tried, not assumed: on a block of noise, its outputs at the lowest and the highest level
    must be the bits of its output at gain 1 times the gain. Graphs that fail run again for each level.
    """

    def __init__(self, codec: Codec, picture: Picture, timings: Timings | None = None) -> None:
        self._codec = codec
        self._unscaled: dict[str, tuple[Tensor, str]] = {}
        for step in _candidates(codec):
            if _scales(codec, step):
                unscaled = codec.host.with_smaller_tiles(partial(_unscaled, codec, picture, step, timings or Timings()))
                self._unscaled[step.outputs[0]] = unscaled, step.inputs[1]

    def tensors(self, level: int) -> dict[str, Tensor]:
        """Latents at a level, ready to be coded, by name (`prior.y`)."""
        return {name: y * _row(self._codec, gain, level) for name, (y, gain) in self._unscaled.items()}


def _candidates(codec: Codec) -> Iterator[Step]:
    """Steps that make a latent from the image and a row of a quality table alone."""
    for step in codec.bundle.manifest.encode:
        match step.op, step.inputs, step.outputs:
            case "run", ("image", gain), (latent,) if gain.startswith("quality.") and latent.endswith(".y"):
                yield step


def _scales(codec: Codec, step: Step) -> bool:
    side = codec.bundle.manifest.alignment
    noise = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    gains = [_row(codec, step.inputs[1], level) for level in (0, QUALITY_LEVELS - 1)]
    (unscaled,) = codec.graphs.run(step.target, [noise, np.ones_like(gains[0])])
    return all(np.array_equal(codec.graphs.run(step.target, [noise, gain])[0], unscaled * gain) for gain in gains)


def _unscaled(codec: Codec, picture: Picture, step: Step, timings: Timings, tile: int | None) -> Tensor:
    evaluation = codec.host.evaluation(picture, 0, timings, tile)
    evaluation.give(step.inputs[1], np.ones_like(_row(codec, step.inputs[1], 0)))
    evaluation.note(step)
    return evaluation.keep(step.outputs[0])


def _row(codec: Codec, table: str, level: int) -> Tensor:
    row: Tensor = codec.bundle.tables[table][level].astype(np.float32).reshape(1, -1, 1, 1)
    return row
