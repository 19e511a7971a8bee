"""Layers of the exact entropy path: trained in float, frozen to integers held in float32 (docs/exactness.md).

A frozen tensor holds, per channel c, the integers `round(real * 2**exponent[c])`, of magnitude at most 2047
(but the means that heads give, of 16 bits). A frozen convolution computes

    out = clip(floor((conv(x, w) + b) * 2**-s), low, high)

with integers w (|w| <= 2047) and b (rounding term included) and a shift s >= 1 per output channel, chosen so that
`sum|w| * max|x| + |b| < 2**24`: then every partial sum is an exact float32 integer, whatever the order of summation,
SIMD width, FMA or TF32 rounding of operands, and all backends agree bit for bit.

Every module has two forms behind one `forward`: float, and after `freeze` the integer one, which is what export writes.
`observe` records the range of activations between the two. The integer form trains as well (straight-through rounding);
it is to be frozen again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.entropy import GaussianConditional

SUM_LIMIT = 2**24
WEIGHT_LIMIT = 2047
STREAM_LIMIT = 2047
"""Magnitude of the residual stream, which only depthwise layers and the head read."""
HIDDEN_LIMIT = 1023
"""Magnitude of everything that a long 1x1 sum reads, but for heads, which read the stream."""

_EXPONENT_RANGE = (-12, 20)


class Range(nn.Module):
    """Largest magnitude seen per channel while observing, and from it the exponent of the integer form."""

    peak: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.observing = False
        self.register_buffer("peak", torch.zeros(channels))

    def record(self, x: Tensor) -> None:
        """Takes the magnitude of x [B, C, H, W] into account if observing."""
        if self.observing:
            self.peak = torch.maximum(self.peak, x.detach().float().abs().amax(dim=(0, 2, 3)))

    def exponent(self, limit: int, tie: int = 1) -> Tensor:
        """Largest e per channel with peak * 2**e <= limit; groups of `tie` neighbours share the smallest."""
        low, high = _EXPONENT_RANGE
        e = torch.floor(torch.log2(limit / self.peak.double().clamp(min=1e-9))).clamp(low, high)
        return e.unflatten(0, (-1, tie)).amin(dim=1, keepdim=True).expand(-1, tie).flatten()


class ExactConv(nn.Module):
    """A 1x1 convolution, or a depthwise 3x3 one with zero padding, with its requantisation.

    `extra` bias, float32 [B, C_out, 1, 1], enters before the shift: real in float form, integer in frozen form.
    """

    int_weight: Tensor
    int_bias: Tensor
    scale: Tensor
    unit: Tensor
    weight_unit: Tensor
    sums: list[float] | None = None
    """See `sums_recorded`."""

    def __init__(
        self, in_channels: int, out_channels: int, *, relu: bool, depthwise: bool = False, limit: int = HIDDEN_LIMIT
    ) -> None:
        super().__init__()
        self.groups, self.padding = (in_channels, 1) if depthwise else (1, 0)
        kernel = 3 if depthwise else 1
        self.relu, self.limit, self.frozen = relu, limit, False
        self.low, self.high = (0 if relu else -limit), limit
        reference = nn.Conv2d(in_channels, out_channels, kernel, padding=self.padding, groups=self.groups)
        self.weight, self.bias = reference.weight, reference.bias
        self.range = Range(out_channels)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        if self.frozen:
            return torch.clip(self._requantised(x, extra), self.low, self.high)
        out = F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)
        if extra is not None:
            out = out + extra
        if self.relu:
            out = F.relu(out)
        self.range.record(out)
        return out

    def add_to(self, stream: Tensor, x: Tensor) -> Tensor:
        """stream + self(x): the residual form, clipped once, after the sum."""
        if self.frozen:
            return torch.clip(stream + self._requantised(x, None), self.low, self.high)
        return stream + self.forward(x)

    def _requantised(self, x: Tensor, extra: Tensor | None) -> Tensor:
        weight, bias = self._trained_integers() if self.training else (self.int_weight, self.int_bias)
        accumulator = F.conv2d(x, weight, bias, padding=self.padding, groups=self.groups)
        if extra is not None:
            accumulator = accumulator + extra
        if self.sums is not None:
            self.sums.append(float(accumulator.abs().max()))
        out = accumulator * self.scale
        return floor_straight_through(out) if self.training else torch.floor(out)

    def _trained_integers(self) -> tuple[Tensor, Tensor]:
        """The integers that the real parameters stand for now, with gradients to these."""
        rounding = 0.5 / self.scale.flatten()
        return (
            round_straight_through(self.weight * self.weight_unit),
            round_straight_through(self.bias * self.unit.float()) + rounding,
        )

    def freeze(
        self, exponent: Tensor, limit: int, *, out_exponent: Tensor, bounds: tuple[int, int] | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Turns the layer into integers; returns the exponents of its output, float64 [C_out].

        `exponent` float64 [C_in] and `limit` describe the input; `out_exponent` is what the output should have: the
        result is lower where the sum does not allow that precision. `bounds` replaces the clip of the output.
        `extra` float [rows, C_out] are the values that the extra bias can take: the bound leaves room for them.
        """
        weight, bias = self.weight.detach().double(), self.bias.detach().double()
        shape = (-1, 1, 1, 1) if self.groups > 1 else (1, -1, 1, 1)
        weight = weight * 2.0 ** -exponent.view(shape)
        extra_peak = torch.zeros_like(bias) if extra is None else extra.detach().double().abs().amax(dim=0)
        total = weight.abs().sum(dim=(1, 2, 3)) * limit + bias.abs() + extra_peak
        largest = weight.abs().amax(dim=(1, 2, 3))
        k = torch.floor(torch.minimum(
            torch.log2(SUM_LIMIT / total.clamp(min=1e-12)), torch.log2(WEIGHT_LIMIT / largest.clamp(min=1e-12))
        ))  # fmt: skip
        k = torch.minimum(k, out_exponent + 22)
        while True:  # one bit less where rounding of the weights or the rounding term went over the limit
            unit, out_exponent = 2.0**k, torch.minimum(out_exponent, k - 1)
            int_weight = torch.round(weight * unit.view(-1, 1, 1, 1))
            shift = k - out_exponent
            int_bias = torch.round(bias * unit) + 2.0 ** (shift - 1)
            bound = int_weight.abs().sum(dim=(1, 2, 3)) * limit + int_bias.abs() + torch.ceil(extra_peak * unit)
            over = (bound >= SUM_LIMIT) | (int_weight.abs().amax(dim=(1, 2, 3)) > WEIGHT_LIMIT)
            if not over.any():
                break
            k = torch.where(over, k - 1, k)
        self.low, self.high = bounds or (self.low, self.high)
        self.register_buffer("int_weight", int_weight.float(), persistent=False)
        self.register_buffer("int_bias", int_bias.float(), persistent=False)
        self.register_buffer("scale", (2.0**-shift).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("unit", unit, persistent=False)
        weight_unit = unit.view(-1, 1, 1, 1) * 2.0 ** -exponent.view(shape)
        self.register_buffer("weight_unit", weight_unit.float(), persistent=False)
        self.bound, self.frozen = bound, True
        return out_exponent

    def extra_as_integers(self, extra: Tensor) -> Tensor:
        """Rows of the extra bias [rows, C_out] in units of the frozen accumulator, integers held in float64."""
        return round_straight_through(extra.double() * self.unit)


class ExactBlock(nn.Module):
    """x + project(relu(expand(depthwise3x3(x)))) with every tensor integer once frozen."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = ExactConv(channels, channels, relu=False, depthwise=True)
        self.expand = ExactConv(channels, channels, relu=True)
        self.project = ExactConv(channels, channels, relu=False, limit=STREAM_LIMIT)
        nn.init.normal_(self.project.weight, std=0.1 / channels**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.project.add_to(x, self.expand(self.depthwise(x)))

    def freeze(self, exponent: Tensor) -> Tensor:
        """Freezes the block on a stream with the given exponents; returns those that its sum can have."""
        e = self.depthwise.freeze(exponent, STREAM_LIMIT, out_exponent=self.depthwise.range.exponent(HIDDEN_LIMIT))
        e = self.expand.freeze(e, HIDDEN_LIMIT, out_exponent=self.expand.range.exponent(HIDDEN_LIMIT))
        return self.project.freeze(e, HIDDEN_LIMIT, out_exponent=exponent)


class ExactTrunk(nn.Module):
    """1x1 entry with the quality bias, then residual blocks: [B, C_in, H, W] to a stream [B, width, H, W]."""

    def __init__(self, in_channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.entry = ExactConv(in_channels, width, relu=False, limit=STREAM_LIMIT)
        self.blocks = nn.ModuleList([ExactBlock(width) for _ in range(blocks)])
        self.stream = Range(width)

    def forward(self, x: Tensor, quality_bias: Tensor) -> Tensor:
        x = self.entry(x, quality_bias)
        self.stream.record(x)
        for block in self.blocks:
            x = block(x)
            self.stream.record(x)
        return x

    def freeze(self, exponent: Tensor, limit: int, quality_bias: Tensor) -> Tensor:
        """Freezes entry and blocks; `quality_bias` float [64, width]. Returns the stream's exponents."""
        stream = self.stream.exponent(STREAM_LIMIT)
        while True:  # the stream keeps one exponent per channel: the smallest that any of its writers needs
            allowed = self.entry.freeze(exponent, limit, out_exponent=stream, extra=quality_bias)
            for block in self.blocks:
                allowed = torch.minimum(allowed, block.freeze(stream))
            if torch.equal(allowed, stream):
                return stream
            stream = allowed


def round_straight_through(x: Tensor) -> Tensor:
    """round(x) forward, identity backward."""
    return x + (torch.round(x) - x).detach()


def floor_straight_through(x: Tensor) -> Tensor:
    """floor(x) forward, identity backward."""
    return x + (torch.floor(x) - x).detach()


@contextmanager
def observe(module: nn.Module) -> Iterator[None]:
    """Within the context, forward passes record: in float form the ranges that `freeze` uses, and counts of symbols."""
    observers = [m for m in module.modules() if isinstance(m, (Range, GaussianConditional))]
    for observer in observers:
        observer.observing = True
    try:
        yield
    finally:
        for observer in observers:
            observer.observing = False


@contextmanager
def sums_recorded(module: nn.Module) -> Iterator[list[float]]:
    """Within the context, frozen convolutions add the largest magnitude of their sums, biases included, to a list."""
    layers, sums = [m for m in module.modules() if isinstance(m, ExactConv)], list[float]()
    for layer in layers:
        layer.sums = sums
    try:
        yield sums
    finally:
        for layer in layers:
            layer.sums = None
