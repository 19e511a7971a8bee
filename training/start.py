"""Where training starts: a linear codec, and the entropy path that its coefficients' variances call for.

Random convolutions take thousands of steps to learn what a matrix can say at once. Every residual block starts as the
identity, every strided convolution as an orthonormal projection on principal components, and every synthesis layer as
the transpose of its analysis layer; the main analysis starts by subtracting the preview. Gains start at the quantiser
step that is best for each lambda at high rate, and every scale at the measured one of its channel and level. So the
first step already codes images, as a two-layer block transform does, and training only has to improve on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.blocks import ConditionAttention, Modulation, ResidualBlock
from condic.models.context import INDEX_EXPONENT, Context
from condic.models.dcic_sgp import DcicSgp
from condic.models.entropy import index_of_scale
from condic.models.quality import LEVELS, GainPair, lambda_of_level

_LEVEL_CHANNEL = 0
"""Channel of the exact networks' streams that starts by carrying the quality level, from -1/2 to 1/2."""


_CROPS_FOR_VARIANCES = 48


def start_from_photographs(model: DcicSgp, image: Tensor) -> None:
    """Sets a whole model from photographs [B, 3, H, W] in [0, 1], sides multiples of 128."""
    start_from_principal_components(model, image)
    start_from_variances(model, image[:_CROPS_FOR_VARIANCES])


@torch.no_grad()
def start_from_principal_components(model: DcicSgp, image: Tensor) -> None:
    """Sets the float transforms from photographs [B, 3, H, W] in [0, 1], sides multiples of 32."""
    for module in model.modules():
        if isinstance(module, (ResidualBlock, ConditionAttention)):
            zero(module.project)
        elif isinstance(module, Modulation):
            zero(module.maps)
    x = image - 0.5

    stem, _, to_16, _, to_32, _ = model.prior_analysis.body
    features = x
    for layer in (stem, to_16, to_32, model.prior_analysis.head):
        features = project(layer, features)
    prior = model.prior_synthesis
    _transpose(prior.at_32[0], model.prior_analysis.head)
    _transpose(prior.at_16[0].conv, to_32)
    _transpose(prior.at_8[0].conv, to_16)
    _transpose(prior.preview.conv, stem)

    f8 = prior.at_8[0](prior.at_16[0](prior.at_32[0](features)))
    seen = model.blind != "analysis"
    features = x - prior.preview(f8) if seen else x
    for layer in (model.analysis.stem, model.analysis.down, model.analysis.head):
        features = project(layer, features)
    _transpose(model.synthesis.stem, model.analysis.head)
    _transpose(model.synthesis.up.conv, model.analysis.down)
    _transpose(model.synthesis.head.conv, model.analysis.stem)
    # analysis: stem(x) + shift(f8) = stem(x - preview); if it is blind, the synthesis takes the preview away again
    shift = model.analysis.stem.weight.flatten(1) @ prior.preview.conv.weight.flatten(1)
    modulation = (model.analysis if seen else model.synthesis).modulate_8
    modulation.maps.weight[shift.shape[0] :, :, 0, 0] = -shift


@torch.no_grad()
def start_from_variances(model: DcicSgp, image: Tensor) -> None:
    """Sets gains, and means and scales of all latents, from photographs that the transforms are run on."""
    for pair in (model.prior_gain, model.main_gain):
        _start_gain(pair)
    anchors = len(model.prior_first.anchors)
    statistics = [_statistics(model, image, round(a * (LEVELS - 1) / (anchors - 1))) for a in range(anchors)]
    for name, table in (("prior", model.prior_first), ("hyper", model.hyper_first)):
        for row, found in zip(table.anchors, statistics, strict=True):
            mean, index = found[name]
            row[:] = torch.cat([mean, index / 2**INDEX_EXPONENT])
    ramp = torch.linspace(-0.5, 0.5, anchors)
    for role, network in model.exact_networks().items():
        if isinstance(network, Context):
            index = torch.stack([found["main" if role.startswith("context") else "prior"][1] for found in statistics])
            _start_context(network, index / 2**INDEX_EXPONENT, ramp)
            model.quality_bias[role].anchors[:, _LEVEL_CHANNEL] = ramp


def _start_gain(pair: GainPair) -> None:
    """Gain 1/step for the step whose slope dD/dR is that of the level's lambda.

    A uniform quantiser of step d has D = d^2/12 and dD/dR = -d^2 ln(2)/6 per coefficient of an orthonormal transform;
    the loss counts lambda * 255^2 * D / 3 per pixel.
    """
    log_gain = 0.5 * torch.log(lambda_of_level(pair.log_gain.anchor_levels()) * 255**2 * math.log(2) / 18)
    pair.log_gain.anchors[:] = log_gain[:, None]
    pair.log_inverse.anchors[:] = -log_gain[:, None]


def _statistics(model: DcicSgp, image: Tensor, level: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and scale index per channel of the three latents at a level."""
    at = torch.tensor([level])
    gain, inverse = model.prior_gain(at)
    prior = model.prior_analysis(image, gain)
    hat = torch.round(prior)
    f8, f16, _ = model.prior_synthesis(hat, inverse)
    main = model.analysis(image, *model.features("analysis", f8, f16), model.main_gain(at)[0])
    latents = {"prior": prior, "hyper": model.hyper_analysis(main, hat), "main": main}
    return {
        name: (y.mean(dim=(0, 2, 3)), index_of_scale(y.std(dim=(0, 2, 3)).clamp(min=1e-3)))
        for name, y in latents.items()
    }


def _start_context(network: Context, index: Tensor, ramp: Tensor) -> None:
    """Makes the network say mean 0 and, at the level that `ramp` [A] stands for, scale index `index` [A, C]."""
    for layer in (network.trunk.entry, *(block.project for block in network.trunk.blocks)):
        layer.weight[_LEVEL_CHANNEL] = 0
        layer.bias[_LEVEL_CHANNEL] = 0
    for head in (network.mean, network.index):
        zero(head)
    network.index.bias[:] = index.mean(dim=0)
    network.index.weight[:, _LEVEL_CHANNEL, 0, 0] = (ramp @ index) / ramp.square().sum()


def project(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Makes a convolution without overlap the projection of x on principal components; its output."""
    kernel = layer.kernel_size[0]
    found = components(F.pixel_unshuffle(x, kernel) if kernel > 1 else x, layer.out_channels)
    layer.weight.zero_()
    layer.weight[: len(found)] = found.view(-1, *layer.weight.shape[1:])
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer(x)


def components(x: Tensor, count: int) -> Tensor:
    """The first principal components of the channels of [B, C, H, W], [count, C]; image by image, to save memory."""
    rows = (part.flatten(1).double() for part in x)
    _, vectors = torch.linalg.eigh(sum(part @ part.T for part in rows))
    return vectors.flip(1).T[:count].float()


def _transpose(synthesis: nn.Conv2d, analysis: nn.Conv2d) -> None:
    """Makes a 1x1 convolution (before a pixel shuffle, where `analysis` has a stride) undo a projection."""
    synthesis.weight[:] = analysis.weight.flatten(1).T[:, :, None, None]
    nn.init.zeros_(synthesis.bias)


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
