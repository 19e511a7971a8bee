"""What of a codec goes into a bundle: its networks as graphs, its schedules, tables and step lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from condic.kernels import gaussian_tables
from condic.models.entropy import mixture_of_scales, scale_table
from condic.runtime.manifest import Latent, Step, TensorSpec


@dataclass(frozen=True)
class SourceGraph:
    """A network to export: positional tensors in, tensors out.

    `limits` bound an exact graph's integer inputs; `guarded` graphs are on the entropy path in floating point. Sides of
    images are multiples of `alignment`. `whole`: there are no tiles, since contexts read places that are far away.
    """

    role: str
    network: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: tuple[tuple[int, int], ...] = ()
    guarded: bool = False
    alignment: int = 128
    whole: bool = False

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
    """A codec's side of the manifest. `options` are choices that change what the networks compute."""

    name: str
    preset: str
    alignment: int
    graphs: tuple[SourceGraph, ...]
    latents: tuple[Latent, ...]
    encode: tuple[Step, ...]
    decode: tuple[Step, ...]
    preview: tuple[Step, ...]
    large_preview: tuple[Step, ...]
    tables: Mapping[str, npt.NDArray[np.generic]]
    scale_table: tuple[float, ...]
    options: Mapping[str, str] = field(default_factory=dict)


def entropy_tables(mixture: Tensor) -> dict[str, npt.NDArray[np.generic]]:
    """The coder's tables, `cdf` and `radius`, of a model's mixtures [S, 3] (see `mixture_of_scales`)."""
    deviations, weights = mixture_of_scales(scale_table(len(mixture)), mixture)
    cdf, radius = gaussian_tables(deviations.numpy(), weights.numpy())
    return {"cdf": cdf, "radius": radius}
