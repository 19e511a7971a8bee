"""cic-sr as graphs, schedules and step lists: its side of the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from condic.export.source import SourceCodec, SourceGraph, entropy_tables, first_table, unmeasured_guard
from condic.models.cic_sr import CicSr, LatentCodec
from condic.models.cic_sr_presets import ChunkSizes
from condic.models.entropy import scale_table
from condic.models.sc_ar import (
    GUARDED_SCALES,
    MEAN_STEP,
    RESIDUAL_STEP,
    Hyper,
    SpatialChannelContext,
)
from condic.models.swin import fix_positions
from condic.runtime.manifest import WHOLE, Box, Chunk, Latent, Step, TensorSpec

FIRST_CODED = 1
"""The smallest scale, 0.11, is not coded: P(q != 0) is below 1e-5."""


def _reads(context: SpatialChannelContext, k: int, *, residual: bool) -> tuple[str, ...]:
    """What the graph of chunk k, or of its residual, takes."""
    hat = ("hat",) if k or residual else ()
    condition = ("condition",) if context.sizes.condition else ()
    inverse = ("inverse",) if hat else ()
    levels = ("gain", "index") if context.residual and not residual else ()
    return (*hat, "mu", *(() if residual else ("sigma",)), *condition, *inverse, *levels)


class _ChunkGraph(nn.Module):
    """Mean and scale index of chunk k, or with `residual` what to add to it, from the tensors named in `reads`."""

    def __init__(self, context: SpatialChannelContext, k: int, *, residual: bool) -> None:
        super().__init__()
        self.context, self.k, self.residual = context.only(k, residual=residual), k, residual
        self.reads = _reads(context, k, residual=residual)

    def forward(self, *tensors: Tensor) -> Tensor:
        known = dict(zip(self.reads, tensors, strict=True))
        context, k = self.context, self.k
        channels = context.place(k)[0]
        first, last = max(0, k - context.sizes.window), k + 1 if self.residual else k
        decoded = [self._natural(known, j) for j in range(first, last)]
        parts = {x: [context.cut(known[x], j) for j in range(context.count)] if x in known else None
                 for x in ("mu", "sigma", "condition")}  # fmt: skip
        hyper = Hyper(parts["mu"] or (), parts["sigma"] or (), parts["condition"])
        if self.residual:
            return context.predict_residual(k, decoded[:-1], decoded[-1], hyper)
        own = (known[x][:, channels] if x in known else None for x in ("gain", "index"))
        return torch.cat(context.predict(k, decoded, hyper, *own), dim=1)

    def _natural(self, known: Mapping[str, Tensor], j: int) -> Tensor:
        return self.context.cut(known["hat"], j) * known["inverse"][:, self.context.place(j)[0]]


class _NaturalHyperAnalysis(nn.Module):
    """Hyper analysis of a scaled latent."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        latent, inverse, *features = tensors
        result: Tensor = self.network(latent * inverse, *features)
        return result


class _AroundImage(nn.Module):
    """Synthesis whose last input is the image to which it adds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        *inputs, around = tensors
        result: Tensor = self.network(*inputs, around=around)
        return result


class _Taking(nn.Module):
    """A network whose inputs come as separate tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        result: Tensor | tuple[Tensor, ...] = self.network(*tensors)
        return result


def describe(model: CicSr) -> SourceCodec:
    """The codec's graphs in coding order, and all that goes with them. Fixes the position biases of attention."""
    fix_positions([model])
    low = _LatentGraphs(model, model.lr, "lr", 4 * model.preset.lr.stride, "lr_")
    main = _LatentGraphs(model, model.main, "main", model.preset.main.stride, "")
    image, lr_image = TensorSpec("image", 3, 1), TensorSpec("lr_image", 3, 4)
    x_sr, features = TensorSpec("x_sr", 3, 1), _features(model)
    in_analysis, in_synthesis, in_hyper = model.condition.split(features)
    halo = _halo(model.preset.chunks)

    def graph(role: str, network: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec],
              *, guarded: bool = True) -> SourceGraph:  # fmt: skip
        return SourceGraph(role, network, tuple(inputs), tuple(outputs), guarded=guarded, halo=halo)

    around = (x_sr,) if model.preset.residual else ()
    synthesis = (_AroundImage if around else _Taking)(model.main.synthesis)
    graphs = (
        graph("downscale", model.downscale, [image], [lr_image], guarded=False),
        graph("lr_analysis", _Taking(model.lr.analysis), [lr_image, low.gain], [low.spec], guarded=False),
        *low.graphs(()),
        graph("lr_synthesis", _Taking(model.lr.synthesis), [low.spec, low.inverse], [lr_image]),
        graph("super_resolution", model.super_resolution, [lr_image], [x_sr]),
        graph("condition", model.condition, [x_sr], features),
        graph("analysis", _Taking(model.main.analysis), [image, main.gain, *in_analysis], [main.spec], guarded=False),
        *main.graphs(tuple(in_hyper)),
        graph("synthesis", synthesis, [main.spec, main.inverse, *in_synthesis, *around], [image], guarded=False),
    )  # fmt: skip

    names = tuple(x.name for x in features)
    known = (
        *low.decoding(()),
        Step("run", "lr_synthesis", ("lr.hat", "quality.lr_inverse_gain"), ("lr_image",)),
        Step("run", "super_resolution", ("lr_image",), ("x_sr",)),
        Step("run", "condition", ("x_sr",), names),
    )
    hyper_names = tuple(x.name for x in in_hyper)
    encode = (
        Step("run", "downscale", ("image",), ("x_lr",)),
        Step("run", "lr_analysis", ("x_lr", "quality.lr_gain"), ("lr.y",)),
        low.hyper_analysis(()),
        *known,
        Step("run", "analysis", ("image", "quality.main_gain", *(x.name for x in in_analysis)), ("main.y",)),
        main.hyper_analysis(hyper_names),
        *main.decoding(hyper_names),
    )
    inputs = ("main.hat", "quality.main_inverse_gain", *(x.name for x in (*in_synthesis, *around)))
    decode = (*known, *main.decoding(hyper_names), Step("run", "synthesis", inputs, ("image",)))
    small = Step("run", "lr_synthesis", ("lr.hat", "quality.lr_inverse_gain"), ("image",))
    large = (known[-3], Step("run", "super_resolution", ("lr_image",), ("image",)))
    return SourceCodec(
        model=model,
        name=model.name,
        preset=model.preset_name,
        alignment=model.alignment,
        graphs=graphs,
        latents=(*low.latents(()), *main.latents(hyper_names)),
        encode=encode,
        decode=decode,
        preview=(*low.decoding(()), small),
        large_preview=(*low.decoding(()), *large),
        tables={**entropy_tables(model.mixture), **low.tables(), **main.tables()},
        scale_table=tuple(scale_table(GUARDED_SCALES).tolist()),
        options={"query": model.query},
    )


class _LatentGraphs:
    """What one latent and its hyper latent contribute; roles begin with `prefix`."""

    def __init__(self, model: CicSr, codec: LatentCodec, name: str, stride: int, prefix: str) -> None:
        self._codec, self._name, self._prefix = codec, name, prefix
        channels = codec.context.chunk_channels * codec.context.sizes.slices
        self.spec = TensorSpec(name, channels, stride)
        self.gain, self.inverse, self.index = (TensorSpec(x, channels, 0) for x in ("gain", "inverse", "index"))
        hyper = codec.hyper_first.anchors.shape[1] // 2
        deeper = 4 if model.preset.lr_hyper.kind == "convolutions" and name == "lr" else 2
        self.hyper = TensorSpec(f"{prefix}hyper", hyper, stride * deeper)
        self._known = tuple(TensorSpec(f"{prefix}{x}", channels, stride) for x in ("mu", "sigma"))

    def graphs(self, features: tuple[TensorSpec, ...]) -> Iterator[SourceGraph]:
        """Hyper analysis, hyper synthesis, and per chunk its context and residual."""
        codec, prefix = self._codec, self._prefix
        context = codec.context
        halo = _halo(context.sizes)
        yield SourceGraph(
            f"{prefix}hyper_analysis", _NaturalHyperAnalysis(codec.hyper_analysis),
            (self.spec, self.inverse, *features), (self.hyper,), halo=halo,
        )  # fmt: skip
        yield SourceGraph(
            f"{prefix}hyper_synthesis", _Taking(codec.hyper_synthesis), (self.hyper, *features), self._known,
            guarded=True, halo=halo,
        )  # fmt: skip
        mu, sigma = self._known
        specs = {"hat": self.spec, "mu": mu, "sigma": sigma, "gain": self.gain, "inverse": self.inverse,
                 "index": self.index} | dict(zip(["condition"], features, strict=False))  # fmt: skip
        stride, width = 2 * self.spec.stride, context.chunk_channels
        for k in range(context.count):
            for role, channels, residual in (("context", 2 * width, False), ("lrp", width, True)):
                network = _ChunkGraph(context, k, residual=residual)
                yield SourceGraph(
                    f"{prefix}{role}_{k}", network, tuple(specs[x] for x in network.reads),
                    (TensorSpec("chunk", channels, stride),), guarded=True, halo=halo,
                )  # fmt: skip

    def hyper_analysis(self, features: tuple[str, ...]) -> Step:
        """The step that makes the hyper latent to code."""
        inputs = (f"{self._name}.y", f"quality.{self._name}_inverse_gain", *features)
        return Step("run", f"{self._prefix}hyper_analysis", inputs, (f"{self.hyper.name}.y",))

    def decoding(self, features: tuple[str, ...]) -> tuple[Step, ...]:
        """The steps that code both latents."""
        known = tuple(x.name for x in self._known)
        return (
            Step("code", self.hyper.name),
            Step("run", f"{self._prefix}hyper_synthesis", (f"{self.hyper.name}.hat", *features), known),
            Step("code", self._name),
        )

    def latents(self, features: tuple[str, ...]) -> tuple[Latent, ...]:
        """Schedules of hyper latent and latent."""
        name, prefix, context = self._name, self._prefix, self._codec.context
        mu, sigma = (x.name for x in self._known)
        names = {"hat": f"{name}.hat", "mu": mu, "sigma": sigma, "gain": f"quality.{name}_gain",
                 "inverse": f"quality.{name}_inverse_gain", "index": f"quality.{name}_index"}  # fmt: skip
        names |= dict(zip(["condition"], features, strict=False))
        chunks = []
        for k in range(context.count):
            channels, row, column = context.place(k)
            box = Box((channels.start, channels.stop), row, column, 2, context.sizes.contiguous)
            inputs, residual_inputs = (
                tuple(names[x] for x in _reads(context, k, residual=residual)) for residual in (False, True)
            )
            chunks.append(Chunk((box,), f"{prefix}context_{k}", inputs, None, f"{prefix}lrp_{k}", residual_inputs))
        whole = (Chunk((Box((0, self.hyper.channels), 0, 0, 1),), table=f"first.{self.hyper.name}"),)
        guard = unmeasured_guard(MEAN_STEP, RESIDUAL_STEP)
        common = (FIRST_CODED, 0, 2**20)
        return (
            Latent(self.hyper.name, self.hyper.channels, self.hyper.stride, *common, whole),
            Latent(name, self.spec.channels, self.spec.stride, *common, tuple(chunks), guard),
        )

    @torch.no_grad()
    def tables(self) -> dict[str, npt.NDArray[np.generic]]:
        """Quality tables, and mean and scale index of the hyper latent."""
        codec, name = self._codec, self._name
        rows = {
            "gain": codec.gain.log_gain.rows().double().exp(),
            "inverse_gain": codec.gain.log_inverse.rows().double().exp(),
            "index": codec.index.rows(),
        }
        # half: the same numbers, whatever the machine's exp
        result = {f"quality.{name}_{key}": value.half().float().numpy() for key, value in rows.items()}
        mean, index = codec.hyper_first.rows().double().chunk(2, dim=1)
        result[f"first.{self.hyper.name}"] = first_table(mean, index, GUARDED_SCALES)
        return result


def _halo(chunks: ChunkSizes) -> int | None:
    """That of all graphs: quadrants make contexts read places that are far away."""
    return WHOLE if chunks.contiguous else None


def _features(model: CicSr) -> list[TensorSpec]:
    """Names and shapes of the condition's features, in the order in which the network gives them."""
    main = model.preset.main
    strides = [main.patch * 2**k for k in range(len(main.widths))]
    analysis = [TensorSpec(f"condition_{s}", w, s) for s, w in zip(strides, main.widths, strict=True)]
    own = [TensorSpec(f"condition_own_{s}", w, s) for s, w in zip(strides, main.widths, strict=True)][1:]
    hyper = TensorSpec("condition_hyper", model.preset.hyper.width, strides[-1])
    return [*analysis, *(own if model.preset.separate else []), hyper]
