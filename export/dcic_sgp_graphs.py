"""dcic-sgp as graphs, schedules and step lists: its side of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from condic.export.receptive_field import halo
from condic.export.source import SourceCodec, SourceGraph, entropy_tables, first_table
from condic.models.context import CONTEXT_EXPONENT, CONTEXT_LIMIT, INDEX_EXPONENT, MEAN_EXPONENT
from condic.models.dcic_sgp import ALIGNMENT, STEPS, DcicSgp
from condic.models.entropy import SCALES, quadtree_boxes, scale_table
from condic.models.exact import HIDDEN_LIMIT
from condic.runtime.manifest import Box, Chunk, Latent, Step, TensorSpec


class _Joined(nn.Module):
    """A context network whose inputs come as separate tensors, the quality bias last."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        *parts, bias = tensors
        joined: Tensor = self.network(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], bias)
        return joined


def describe(model: DcicSgp) -> SourceCodec:
    """All that goes into the bundle of a calibrated model. Raises InputError where it cannot be frozen."""
    halos = {graph.role: halo(graph, ALIGNMENT) for graph in source_graphs(model)}  # integers have no gradient
    model = deepcopy(model)
    with torch.no_grad():
        model.freeze()
    return SourceCodec(
        model=model,
        name=model.name,
        preset=model.preset_name,
        alignment=ALIGNMENT,
        graphs=tuple(replace(graph, halo=halos[graph.role]) for graph in source_graphs(model)),
        latents=latents(model),
        encode=ENCODE,
        decode=DECODE,
        preview=PREVIEW,
        tables=tables(model),
        scale_table=tuple(scale_table().tolist()),
    )


def source_graphs(model: DcicSgp) -> list[SourceGraph]:
    """All networks of a model in coding order, as it is: in floating point or, once frozen, in integers."""
    p = model.preset
    image, y_prior = TensorSpec("image", 3, 1), TensorSpec("prior", p.prior, 32)
    y, hyper = TensorSpec("main", p.main, 16), TensorSpec("hyper", p.hyper, 64)
    f8, f16 = TensorSpec("f8", p.prior_widths[0], 8), TensorSpec("f16", p.prior_widths[1], 16)
    preview, parameters = TensorSpec("preview", 3, 1), TensorSpec("parameters", p.main, 16)
    prior_gain, main_gain, bias = (
        TensorSpec(name, c, 0) for name, c in (("gain", p.prior), ("gain", p.main), ("bias", p.entropy))
    )
    latent_limits, parameter_limits = (-CONTEXT_LIMIT, CONTEXT_LIMIT), (0, HIDDEN_LIMIT)

    def context(role: str, network: nn.Module, inputs: Sequence[TensorSpec], latent: TensorSpec) -> SourceGraph:
        limits = tuple(parameter_limits if x is parameters else latent_limits for x in inputs)
        output = TensorSpec("distribution", 2 * latent.channels, latent.stride)
        return SourceGraph(role, _Joined(network), (*inputs, bias), (output,), limits)

    return [
        SourceGraph("prior_analysis", model.prior_analysis, (image, prior_gain), (y_prior,)),
        *(context(f"prior_context_{k}", net, [y_prior], y_prior) for k, net in enumerate(model.prior_context, start=1)),
        SourceGraph("prior_synthesis", model.prior_synthesis, (y_prior, prior_gain), (f8, f16, preview)),
        SourceGraph("analysis", model.analysis, (image, f8, f16, main_gain), (y,)),
        SourceGraph("hyper_analysis", model.hyper_analysis, (y, y_prior), (hyper,)),
        SourceGraph(
            "hyper_synthesis",
            model.hyper_synthesis,
            (hyper, y_prior, bias),
            (parameters,),
            (latent_limits, latent_limits),
        ),
        *(
            context(f"context_{k}", net, [y, parameters] if k else [parameters], y)
            for k, net in enumerate(model.context)
        ),
        SourceGraph("synthesis", model.synthesis, (y, main_gain, f8, f16, preview), (image,)),
    ]


def latents(model: DcicSgp) -> tuple[Latent, ...]:
    """Schedules of prior, hyper and main latents."""
    p = model.preset
    common = (p.first_coded, MEAN_EXPONENT - CONTEXT_EXPONENT, CONTEXT_LIMIT)
    prior, main = _quadtree(p.prior), _quadtree(p.main)
    whole = (Box((0, p.hyper), 0, 0, 1),)
    prior_chunks = [Chunk(prior[0], table="first.prior")] + [
        Chunk(prior[k], f"prior_context_{k}", ("prior.context", f"quality.prior_context_{k}")) for k in range(1, STEPS)
    ]
    main_chunks = [
        Chunk(main[k], f"context_{k}", (*(["main.context"] if k else []), "parameters", f"quality.context_{k}"))
        for k in range(STEPS)
    ]
    return (
        Latent("prior", p.prior, 32, *common, tuple(prior_chunks)),
        Latent("hyper", p.hyper, 64, *common, (Chunk(whole, table="first.hyper"),)),
        Latent("main", p.main, 16, *common, tuple(main_chunks)),
    )


_PRIOR_FEATURES = Step("run", "prior_synthesis", ("prior.hat", "quality.prior_inverse_gain"), ("f8", "f16", "preview"))
_PARAMETERS = Step(
    "run", "hyper_synthesis", ("hyper.context", "prior.context", "quality.hyper_synthesis"), ("parameters",)
)

ENCODE = (
    Step("run", "prior_analysis", ("image", "quality.prior_gain"), ("prior.y",)),
    Step("code", "prior"),
    _PRIOR_FEATURES,
    Step("run", "analysis", ("image", "f8", "f16", "quality.main_gain"), ("main.y",)),
    Step("run", "hyper_analysis", ("main.y", "prior.hat"), ("hyper.y",)),
    Step("code", "hyper"),
    _PARAMETERS,
    Step("code", "main"),
)
DECODE = (
    Step("code", "prior"),
    _PRIOR_FEATURES,
    Step("code", "hyper"),
    _PARAMETERS,
    Step("code", "main"),
    Step("run", "synthesis", ("main.hat", "quality.main_inverse_gain", "f8", "f16", "preview"), ("image",)),
)
PREVIEW = (
    Step("code", "prior"),
    Step("run", "prior_synthesis", ("prior.hat", "quality.prior_inverse_gain"), ("f8", "f16", "image")),
)


@torch.no_grad()
def tables(model: DcicSgp) -> dict[str, npt.NDArray[np.generic]]:
    """Entropy tables, quality tables and the parameters of latents without context, as the runtime reads them."""
    result = entropy_tables(model.mixture)
    for name, pair in (("prior", model.prior_gain), ("main", model.main_gain)):
        for kind, log_table in (("gain", pair.log_gain), ("inverse_gain", pair.log_inverse)):
            gains = log_table.rows().double().exp().half()  # half: the same numbers, whatever the machine's exp
            result[f"quality.{name}_{kind}"] = gains.float().numpy()
    rows = model.bias_rows()
    for role, network in model.exact_networks().items():
        integers = network.trunk.entry.extra_as_integers(rows[role])
        result[f"quality.{role}"] = integers.to(torch.int32).numpy()
    for name, table in (("prior", model.prior_first), ("hyper", model.hyper_first)):
        mean, index = table.rows().double().chunk(2, dim=1)
        result[f"first.{name}"] = first_table(mean, index * 2**INDEX_EXPONENT, SCALES)
    return result


def _quadtree(channels: int) -> list[tuple[Box, ...]]:
    return [
        tuple(Box((begin, end), row, column, 2) for begin, end, row, column in step)
        for step in quadtree_boxes(channels)
    ]
