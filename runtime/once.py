"""What coding one image at many levels needs to compute only once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from condic.errors import SizeError
from condic.runtime.arrays import Tensor
from condic.runtime.codec import Codec
from condic.runtime.manifest import QUALITY_LEVELS, Step, is_quality_table
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
                gain = step.inputs[1]
                ones = np.ones_like(codec.host.quality_row(gain, 0))
                self._unscaled[step.outputs[0]] = codec.host.output_of(step, picture, {gain: ones}, timings), gain

    def tensors(self, level: int) -> dict[str, Tensor]:
        """Latents at a level, ready to be coded, by name (`prior.y`)."""
        return {name: y * self._codec.host.quality_row(gain, level) for name, (y, gain) in self._unscaled.items()}


def _candidates(codec: Codec) -> Iterator[Step]:
    """Steps that make a latent from the image and a row of a quality table alone."""
    for step in codec.bundle.manifest.encode:
        match step.op, step.inputs, step.outputs:
            case "run", ("image", gain), (latent,) if is_quality_table(gain) and latent.endswith(".y"):
                yield step


def _scales(codec: Codec, step: Step) -> bool:
    side = codec.bundle.manifest.alignment
    noise = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    gains = [codec.host.quality_row(step.inputs[1], level) for level in (0, QUALITY_LEVELS - 1)]

    def run(gain: Tensor) -> Tensor:
        (latent,) = codec.graphs.run(step.target, [noise, gain])
        return latent

    try:
        unscaled = run(np.ones_like(gains[0]))
        return all(np.array_equal(run(gain), unscaled * gain) for gain in gains)
    except SizeError:  # no engine takes so small an image
        return False
