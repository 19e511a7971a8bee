"""Sizes of the cic-sr models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from condic.models.swinir import SwinIrSizes


@dataclass(frozen=True)
class TransformSizes:
    """Analysis and synthesis of one codec: stages of Swin blocks at 1/patch, 1/(2 patch), ...

    `norm` puts layer norms at patch embedding, merging and splitting, as the authors do; without them the transforms
    can start as a linear codec. The last width is that of the latent.
    """

    patch: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]
    mlp: float
    norm: bool

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return self.widths[-1]

    @property
    def stride(self) -> int:
        """Pixels of the image per element of the latent, along a side."""
        return self.patch * 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class HyperSizes:
    """Hyper transforms: `channels` of the hyper latent, `width` in between.

    `depths` at the latent's width, then at `width`; `synthesis_depths` at `width`, then at the latent's. `kind`
    "convolutions" is the five-layer stack of the authors' codec for the low-resolution image, whose hyper latent has a
    quarter of the latent's resolution instead of a half.
    """

    channels: int
    width: int
    depths: tuple[int, int] = (0, 0)
    synthesis_depths: tuple[int, int] = (0, 0)
    heads: int = 1
    window: int = 4
    mlp: float = 4.0
    kind: Literal["swin", "convolutions"] = "swin"


@dataclass(frozen=True)
class ChunkSizes:
    """Spatial-channel chunks of a latent: `slices` of channels at four places, channel first, then zigzag.

    A chunk's networks read the last `window` decoded chunks, `parameters` chunks of h_mu or h_sigma from its own on,
    and as many chunks of the condition as `condition` says. `contiguous` places are quadrants (the authors'), others
    the four phases of 2x2 cells, whose neighbours tell more. `refine`: depths and window of Swin stages on the mean,
    the scale and the residual. `attention`: width of the cross-attention in residual prediction, 0 for none.
    """

    slices: int
    window: int
    parameters: int
    condition: int
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    contiguous: bool = False
    refine: tuple[tuple[tuple[int, ...], int], ...] = ()
    attention: int = 0


@dataclass(frozen=True)
class CicSrPreset:
    """Both codecs and the super-resolution between them.

    `lr` transforms work on the image at 1/4. `residual`: networks predict around what is known (means around h_mu, the
    image around x_SR), so that training has a linear start; the authors' networks do not. `separate`: hyper transforms
    and synthesis have convolutions of their own on the condition.
    """

    alignment: int
    lr: TransformSizes
    lr_hyper: HyperSizes
    lr_chunks: ChunkSizes
    sr: SwinIrSizes
    main: TransformSizes
    hyper: HyperSizes
    chunks: ChunkSizes
    residual: bool
    separate: bool


_REFINED = (((2, 6), 8), ((2, 2), 8), ((2, 6), 8))

CIC_SR_PRESETS = {
    "t": CicSrPreset(
        alignment=128,
        lr=TransformSizes(8, (8, 16), (1, 0), (1, 1), (4, 2), 1.0, False),
        lr_hyper=HyperSizes(4, 8),
        lr_chunks=ChunkSizes(1, 3, 1, 0, (8,), (1, 3)),
        sr=SwinIrSizes(28, (2,), (1,), 8, 1.0, "pixelshuffledirect"),
        main=TransformSizes(8, (16, 32), (2, 1), (1, 2), (4, 4), 1.0, False),
        hyper=HyperSizes(8, 16, (0, 1), (1, 0), 1, 4, 1.0),
        chunks=ChunkSizes(2, 6, 1, 0, (8,), (1, 3), attention=8),
        residual=True,
        separate=False,
    ),
    "s": CicSrPreset(
        alignment=128,
        lr=TransformSizes(8, (96, 192), (2, 0), (3, 6), (4, 2), 2.0, False),
        lr_hyper=HyperSizes(32, 64),
        lr_chunks=ChunkSizes(2, 3, 1, 0, (32, 24), (1, 3, 1)),
        sr=SwinIrSizes(48, (2, 2), (3, 3), 8, 2.0, "pixelshuffledirect"),
        main=TransformSizes(4, (48, 96, 224), (2, 3, 1), (2, 3, 7), (4, 4, 4), 1.0, False),
        hyper=HyperSizes(32, 64, (0, 2), (2, 0), 2, 4, 2.0),
        chunks=ChunkSizes(2, 6, 1, 0, (32, 24), (1, 3, 1), attention=24),
        residual=True,
        separate=False,
    ),
    "paper": CicSrPreset(
        alignment=1024,
        lr=TransformSizes(2, (48, 96, 192, 384), (2, 2, 6, 2), (3, 6, 12, 24), (4, 4, 4, 4), 4.0, True),
        lr_hyper=HyperSizes(192, 288, kind="convolutions"),
        lr_chunks=ChunkSizes(
            6, 12, 24, 0, (224, 176, 128, 64), (3, 3, 3, 3, 3), contiguous=True, refine=_REFINED
        ),
        sr=SwinIrSizes(180, (6,) * 6, (6,) * 6, 8, 2.0, "pixelshuffle"),
        main=TransformSizes(2, (48, 96, 192, 384), (2, 2, 6, 2), (3, 6, 12, 24), (4, 4, 4, 4), 4.0, True),
        hyper=HyperSizes(192, 192, (2, 6), (2, 6), 4, 4, 4.0),
        chunks=ChunkSizes(4, 6, 6, 6, (224, 176, 128, 64), (3, 3, 3, 3, 3), contiguous=True),
        residual=False,
        separate=True,
    ),
}  # fmt: skip
