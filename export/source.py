"""What of a codec goes into a bundle: its networks as graphs, its schedules, tables and step lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from condic.kernels import gaussian_tables
from condic.models.entropy import mixture_of_scales, scale_table
from condic.runtime.manifest import QUALITY_LEVELS, Deltas, Guard, Latent, Step, TensorSpec

_FIRST_DELTA = 1 / 64


@dataclass(frozen=True)
class SourceGraph:
    """A network to export: positional tensors in, tensors out.

    Traced for export with height and width open: sides of images are multiples of its codec's alignment. `limits` bound
    an exact graph's integer inputs; `guarded` graphs are on the entropy path in floating point. `halo` is how far
    outputs reach into inputs, in units of the alignment: measured if None, `WHOLE` where a graph needs the whole image.
    """

    role: str
    network: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: tuple[tuple[int, int], ...] = ()
    guarded: bool = False
    halo: int | None = None

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the network gives, a tuple in any case."""
        outputs = self.network(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    @property
    def exact(self) -> bool:
        """Whether the graph computes in integers."""
        return bool(self.limits)

    @property
    def precision(self) -> Literal["exact", "float", "guarded"]:
        """The graph's class in the manifest."""
        return "exact" if self.exact else "guarded" if self.guarded else "float"


@dataclass(frozen=True)
class SourceCodec:
    """A codec's side of the manifest.

    `model` holds the parameters of all graphs and whatever else the bundle's id should depend on. `options` are choices
    that change what the networks compute.
    """

    model: nn.Module
    name: str
    preset: str
    alignment: int
    graphs: tuple[SourceGraph, ...]
    latents: tuple[Latent, ...]
    encode: tuple[Step, ...]
    decode: tuple[Step, ...]
    preview: tuple[Step, ...]
    tables: Mapping[str, npt.NDArray[np.generic]]
    scale_table: tuple[float, ...]
    large_preview: tuple[Step, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


def entropy_tables(mixture: Tensor) -> dict[str, npt.NDArray[np.generic]]:
    """The coder's tables, `cdf` and `radius`, of a model's mixtures [S, 3] (see `mixture_of_scales`)."""
    deviations, weights = mixture_of_scales(scale_table(len(mixture)), mixture)
    cdf, radius = gaussian_tables(deviations.numpy(), weights.numpy())
    return {"cdf": cdf, "radius": radius}


@torch.no_grad()
def first_table(mean: Tensor, index: Tensor, scales: int) -> npt.NDArray[np.int16]:
    """The table of a latent without context, int16 [64, 2 C]: means in 1/16, and scale indexes.

    `mean` and `index` are real, [64, C], or [C] where all levels have the same.
    """
    rows = torch.cat(
        [
            torch.round(mean.double() * 16).clamp(-(2**15), 2**15 - 1),
            torch.round(index.double()).clamp(0, scales - 1),
        ],
        dim=-1,
    )
    table: npt.NDArray[np.int16] = rows.to(torch.int16).expand(QUALITY_LEVELS, -1).contiguous().numpy()
    return table


def unmeasured_guard(mean_step: int, residual_step: int = 1) -> Guard:
    """A guard with the given steps, in 1/16, whose deltas are still to be measured (`condic.export.guard.guarded`)."""
    return Guard(mean_step, residual_step, (0,), (Deltas(_FIRST_DELTA, _FIRST_DELTA, _FIRST_DELTA),))
