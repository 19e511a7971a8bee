"""Makes a bundle of a codec that condic does not know: the example of docs/own-codec.md.

    pip install '.[cpu,export]'
    python docs/hyperprior.py mine.condic [WEIGHTS PHOTOGRAPH...]

The codec is a mean-scale hyperprior (Minnen et al., "Joint Autoregressive and Hierarchical Priors", NeurIPS 2018,
without the autoregressive part). Its networks have the names and shapes that CompressAI gives them in `mbt2018_mean`,
with leaky ReLU in place of GDN. Without a state dict in WEIGHTS they are random: files are exact, and pictures grey.
The photographs, of 256x256 pixels or more, tell how the hyper latent of trained networks is distributed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from condic.export.build import build_bundle
from condic.export.guard import guarded
from condic.export.source import SourceCodec, SourceGraph, entropy_tables, first_table, unmeasured_guard
from condic.models.entropy import index_of_scale, plain_gaussians, scale_table
from condic.runtime.bundle import write_bundle
from condic.runtime.manifest import Box, Chunk, Latent, Step, TensorSpec

SCALES = 24
"""Entries of the scale table. Each boundary between two costs a note now and then; a finer table gains little."""
_EVERY_ELEMENT = 0, 0, 2**20
"""`first_coded`: all are coded; the others are for graphs that compute in integers."""


class Hyperprior(nn.Module):
    """The networks that were trained: `width` channels inside and in the hyper latent, `latent` in the latent."""

    def __init__(self, width: int = 128, latent: int = 192) -> None:
        super().__init__()
        n, m = width, latent
        self.g_a = nn.Sequential(_down(3, n), _act(), _down(n, n), _act(), _down(n, n), _act(), _down(n, m))
        self.g_s = nn.Sequential(_up(m, n), _act(), _up(n, n), _act(), _up(n, n), _act(), _up(n, 3))
        self.h_a = nn.Sequential(nn.Conv2d(m, n, 3, 1, 1), _act(), _down(n, n), _act(), _down(n, n))
        self.h_s = nn.Sequential(_up(n, m), _act(), _up(m, m * 3 // 2), _act(), nn.Conv2d(m * 3 // 2, m * 2, 3, 1, 1))


def _down(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 5, 2, 2)


def _up(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1)


def _act() -> nn.Module:
    return nn.LeakyReLU()


class Distribution(nn.Module):
    """From the hyper latent, means and scale indexes of the latent."""

    def __init__(self, h_s: nn.Module) -> None:
        super().__init__()
        self.h_s = h_s

    def forward(self, hyper: Tensor) -> Tensor:
        sigma, mean = self.h_s(hyper).chunk(2, dim=1)
        return torch.cat([mean, index_of_scale(sigma, SCALES)], dim=1)


@torch.no_grad()
def describe(net: Hyperprior, photographs: Tensor) -> SourceCodec:
    """All that a bundle needs. `photographs` [B, 3, H, W] in 0..1 tell how the hyper latent is distributed."""
    main, hyper = net.g_a[-1].out_channels, net.h_a[-1].out_channels
    image, y, z = TensorSpec("image", 3, 1), TensorSpec("main", main, 16), TensorSpec("hyper", hyper, 64)
    distribution = TensorSpec("distribution", 2 * main, 16)
    graphs = (
        SourceGraph("analysis", net.g_a, (image,), (y,)),
        SourceGraph("hyper_analysis", net.h_a, (y,), (z,)),
        SourceGraph("context", Distribution(net.h_s), (z,), (distribution,), guarded=True),
        SourceGraph("synthesis", net.g_s, (y,), (image,)),
    )

    whole_hyper, whole_main = Box((0, hyper), 0, 0, 1), Box((0, main), 0, 0, 1)
    latents = (
        Latent("hyper", hyper, 64, *_EVERY_ELEMENT, (Chunk((whole_hyper,), table="first.hyper"),)),
        Latent(
            "main", main, 16, *_EVERY_ELEMENT, (Chunk((whole_main,), "context", ("hyper.hat",)),), unmeasured_guard(1)
        ),
    )
    known = (Step("code", "hyper"), Step("code", "main"))
    encode = (
        Step("run", "analysis", ("image",), ("main.y",)),
        Step("run", "hyper_analysis", ("main.y",), ("hyper.y",)),
        *known,
    )
    decode = (*known, Step("run", "synthesis", ("main.hat",), ("image",)))

    z_values = net.h_a(net.g_a(photographs)).transpose(0, 1).flatten(1)
    first = first_table(z_values.mean(1), index_of_scale(z_values.std(1), SCALES), SCALES)
    return SourceCodec(
        model=net,
        name="hyperprior",
        preset=f"{hyper}x{main}",
        alignment=64,
        graphs=graphs,
        latents=latents,
        encode=encode,
        decode=decode,
        preview=decode,
        tables=entropy_tables(plain_gaussians(SCALES)) | {"first.hyper": first},
        scale_table=tuple(scale_table(SCALES).tolist()),
    )


def read(photographs: Sequence[str]) -> Tensor:
    """Their first 256x256 pixels; noise if there are none."""
    if not photographs:
        return torch.rand(1, 3, 256, 256)
    crops = [np.asarray(Image.open(path).convert("RGB"))[:256, :256] for path in photographs]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255


def main(out: str, weights: str | None = None, *photographs: str) -> None:
    """Writes the bundle."""
    torch.manual_seed(0)
    net = Hyperprior()
    if weights:
        net.load_state_dict(torch.load(weights, weights_only=True))
    net = net.half().float().eval()  # bundles store weights in half precision
    source = describe(net, read(photographs))
    bundle = guarded(build_bundle(source, {"licence": "CC0"}, begin=print), print)
    write_bundle(bundle, Path(out))
    print(f"{out}: {bundle.manifest.bundle_id[:16]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
