"""Reads published checkpoints into preset `paper`: the authors' `czigzag` and `stf8`, and the official SwinIR.

Names and shapes are those of github.com/tshen2-pegasus/Learning-Based-Conditional-Image-Compression (czigzag.py,
stf8.py; layers of CompressAI) and of github.com/JingyunLiang/SwinIR. The code of `czigzag` registers more networks than
its forward pass reads; those tensors are known by name and left out (`UNREAD`). The factorised prior of a hyper latent
becomes, per channel, its median and the Gaussian of the scale table that codes it in the fewest bits. Parameters are
rounded to float16, as bundles store them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.errors import InputError
from condic.models.cic_sr import CicSr, LatentCodec
from condic.models.entropy import scale_table
from condic.models.sc_ar import GUARDED_SCALES
from condic.models.swin import relative_position_index

State = Mapping[str, Tensor]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_DERIVED = re.compile(
    r"entropy_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target)|gaussian_conditional\..*|(.*\.)?attn_mask"
)
"""Buffers that follow from parameters or sizes."""
UNREAD = re.compile(
    r"(patch_embed_up|decoder_context|h_a|h_mean_s|h_scale_s|mu_Swin2|sigma_Swin2|LRP_Swin2"
    r"|(encoder|hyper)_context\.3)\..*"
)
"""Tensors of `czigzag` that its forward pass does not read."""

_TRANSFORMS: tuple[Rule, ...] = (
    (r"analysis\.embed\.", "patch_embed."),
    (r"analysis\.stages\.(\d)\.", r"layers.\1."),
    (r"analysis\.merges\.(\d)\.", r"layers.\1.downsample."),
    (r"synthesis\.stages\.(\d)\.", lambda m: f"syn_layers.{3 - int(m[1])}."),
    (r"synthesis\.splits\.(\d)\.", lambda m: f"syn_layers.{2 - int(m[1])}.downsample."),
    (r"synthesis\.head\.", "end_conv."),
    (r"context\.mean\.(\d+)\.stack\.", r"cc_mean_transforms2.\1."),
    (r"context\.scale\.(\d+)\.stack\.", r"cc_scale_transforms2.\1."),
    (r"context\.lrp\.(\d+)\.stack\.", r"lrp_transforms2.\1."),
)
_MAIN: tuple[Rule, ...] = (
    (r"hyper_analysis\.first\.", "hyper_encoder_layers.0."),
    (r"hyper_analysis\.second\.", "hyper_encoder_layers.1."),
    (r"hyper_analysis\.narrow\.", "hyper_encoder_Conv1_2."),
    (r"hyper_analysis\.down\.", "hyper_encoder_Conv2."),
    *((rf"hyper_synthesis\.{ours}\.{part}\.", f"hyper_decoder_{theirs.format(name)}.")
      for ours, name in (("mu", "mean"), ("sigma", "scale"))
      for part, theirs in (("up", "conv_{}1.0"), ("widen", "conv_{}2"), ("first", "{}.0"), ("second", "{}.1"))),
    *_TRANSFORMS,
)  # fmt: skip
_CONDITION: tuple[Rule, ...] = (
    (r"embed\.", "patch_embed."),
    (r"analysis\.", "encoder_context."),
    (r"synthesis\.", "hyper_context."),
    (r"hyper\.", "hyper_encoder_Conv1."),
)
_SUBPIXEL = {"0": "0", "2": "2.0", "5": "4", "7": "6.0", "10": "8"}
_LOW: tuple[Rule, ...] = (
    (r"hyper_analysis\.stack\.", "h_a."),
    (r"hyper_synthesis\.mu\.stack\.(\d+)\.", lambda m: f"h_mean_s.{_SUBPIXEL[m[1]]}."),
    (r"hyper_synthesis\.sigma\.stack\.(\d+)\.", lambda m: f"h_scale_s.{_SUBPIXEL[m[1]]}."),
    (r"context\.mean\.(\d+)\.refine\.", r"mu_Swin2.\1."),
    (r"context\.scale\.(\d+)\.refine\.", r"sigma_Swin2.\1."),
    (r"context\.lrp\.(\d+)\.refine\.", r"LRP_Swin2.\1."),
    *_TRANSFORMS,
)  # fmt: skip
_OURS_ALONE = ("gain.", "index.", "hyper_first.")
"""Tables by quality level, which the published models, of one rate each, do not have."""


@dataclass(frozen=True)
class Import:
    """What became of a checkpoint's tensors."""

    read: frozenset[str]
    unread: frozenset[str]


def read_state(path: Path) -> State:
    """A checkpoint's tensors by name, without the wrappings that training scripts add. Raises InputError."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "params_ema", "params"):
            content = content.get(key, content)
        return {name.removeprefix("module."): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # a pickle can fail in any way
        raise InputError(f"{path}: not a PyTorch checkpoint ({type(error).__name__})") from error


def load_conditional(model: CicSr, state: State, source: str) -> Import:
    """Loads a `czigzag` checkpoint into the conditional codec. InputError names the tensor that does not fit."""
    reader = _Reader(state, source, UNREAD)
    reader.fill(model.main, _MAIN)
    reader.fill(model.condition, _CONDITION)
    reader.fill_tables(model.main)
    return reader.close(model.main)


def load_low_resolution(model: CicSr, state: State, source: str) -> Import:
    """Loads an `stf8` checkpoint into the codec of the low-resolution image. Raises as above."""
    reader = _Reader(state, source, None)
    reader.fill(model.lr, _LOW)
    reader.fill_tables(model.lr)
    return reader.close(model.lr)


def load_super_resolution(model: CicSr, state: State, source: str) -> Import:
    """Loads an official SwinIR checkpoint of the preset's sizes. Raises as above."""
    reader = _Reader(state, source, None)
    reader.fill(model.super_resolution, ())
    return reader.close(model.super_resolution)


class _Reader:
    """Takes tensors out of a state and keeps book."""

    def __init__(self, state: State, source: str, unread: re.Pattern[str] | None) -> None:
        self._state, self._source, self._unread = state, source, unread
        self._read: set[str] = set()

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor that must be there with this shape."""
        if name not in self._state:
            raise InputError(f"{self._source}: lacks the tensor {name}; a checkpoint of another model?")
        tensor = self._state[name]
        if tuple(tensor.shape) != tuple(shape):
            raise InputError(f"{self._source}: {name} is {list(tensor.shape)}, this model has {list(shape)}")
        self._read.add(name)
        return tensor

    def fill(self, network: nn.Module, rules: Sequence[Rule]) -> None:
        """Sets all parameters of a network but the level tables."""
        new = {}
        for name, own in network.named_parameters():
            if not name.startswith(_OURS_ALONE) or not rules:
                new[name] = self._parameter(name, own, rules)
        network.load_state_dict(new, strict=False, assign=True)

    def _parameter(self, name: str, own: Tensor, rules: Sequence[Rule]) -> Tensor:
        published = name
        for pattern, replacement in rules:
            published, count = re.subn(f"^{pattern}", replacement, name)
            if count:
                break
        linear = name.endswith("reduction.weight")  # a linear layer there, a 1x1 convolution here
        tensor = self.take(published, own.shape[:2] if linear else own.shape)
        if ".merges." in name:
            tensor = _channel_major(tensor)
        return nn.Parameter((tensor[:, :, None, None] if linear else tensor).half().float())

    def fill_tables(self, codec: LatentCodec) -> None:
        """One rate: gains of one at all levels; the hyper latent's distribution from the factorised prior."""
        channels = codec.hyper_first.anchors.shape[1] // 2
        widths = (1, 3, 3, 3, 3, 1)
        matrices, biases, factors = [], [], []
        for k, (before, after) in enumerate(pairwise(widths)):
            matrices.append(self.take(f"entropy_bottleneck._matrix{k}", (channels, after, before)))
            biases.append(self.take(f"entropy_bottleneck._bias{k}", (channels, after, 1)))
            if k < len(widths) - 2:
                factors.append(self.take(f"entropy_bottleneck._factor{k}", (channels, after, 1)))
        median = self.take("entropy_bottleneck.quantiles", (channels, 1, 3))[:, 0, 1].double()
        index = closest_scale(matrices, biases, factors, median)
        row = torch.cat([median, index.double()]).float()
        anchors = len(codec.hyper_first.anchors)
        tables = {"hyper_first.anchors": row.repeat(anchors, 1)}
        for name in ("gain.log_gain", "gain.log_inverse", "index"):
            tables[f"{name}.anchors"] = torch.zeros(anchors, codec.gain.log_gain.anchors.shape[1])
        codec.load_state_dict({k: nn.Parameter(v) for k, v in tables.items()}, strict=False, assign=True)

    def close(self, network: nn.Module) -> Import:
        """Checks what was not read: known, or constant, or an error."""
        unread = set()
        for name in self._state.keys() - self._read:
            if name.endswith("relative_position_index"):
                window = math.isqrt(self._state[name].shape[0])
                if not self._state[name].is_meta and not torch.equal(
                    self._state[name].long(), relative_position_index(window)
                ):
                    raise InputError(f"{self._source}: {name} is not that of windows of {window}x{window}")
            elif not (_DERIVED.fullmatch(name) or (self._unread and self._unread.fullmatch(name))):
                raise InputError(f"{self._source}: unknown tensor {name}; a checkpoint of another model?")
            unread.add(name)
        return Import(frozenset(self._read), frozenset(unread))


def closest_scale(
    matrices: Sequence[Tensor], biases: Sequence[Tensor], factors: Sequence[Tensor], median: Tensor
) -> Tensor:
    """Index of the scale whose zero-mean Gaussian codes a factorised density around its median in the fewest bits.

    The density is CompressAI's (Balle et al., ICLR 2018, appendix 6.1): per channel [C], layers [C, out, in].
    """
    radius = 64
    q = torch.arange(-radius, radius + 1, dtype=torch.float64)
    edges = torch.cat([q - 0.5, q[-1:] + 0.5]) + median[:, None]  # [C, n + 1]
    x = edges[:, None]
    for k, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        x = F.softplus(matrix.double()) @ x + bias.double()
        if k < len(factors):
            x = x + torch.tanh(factors[k].double()) * torch.tanh(x)
    probability = torch.sigmoid(x[:, 0]).diff(dim=1).clamp(min=0)
    sigma = scale_table(GUARDED_SCALES)[:, None]
    likelihood = torch.special.ndtr((q + 0.5) / sigma) - torch.special.ndtr((q - 0.5) / sigma)
    bits = -torch.log2(likelihood.clamp(min=2.0**-31))
    return (probability @ bits.T).argmin(dim=1)


def _channel_major(tensor: Tensor) -> Tensor:
    """Their merged pixels are four blocks of channels, (0,0), (1,0), (0,1), (1,1); here each channel has its 2x2."""
    blocks = tensor.unflatten(-1, (2, 2, -1))  # column, row, channel
    return blocks.movedim(-1, -3).transpose(-1, -2).flatten(-3)
