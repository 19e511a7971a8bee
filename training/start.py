"""Where training starts: the transforms as a linear codec, the principal components of photographs.

Random convolutions take thousands of steps to learn what a matrix can say at once. Every residual block starts as the
identity, every strided convolution as an orthonormal projection on principal components, and every synthesis layer as
the transpose of its analysis layer; the main analysis starts by subtracting the preview. So the first step already
codes images, as a two-layer block transform does, and training only has to improve on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condic.models.blocks import Modulation, ResidualBlock, WindowAttention
from condic.models.dcic_sgp import DcicSgp


@torch.no_grad()
def start_from_principal_components(model: DcicSgp, image: Tensor) -> None:
    """Sets the float transforms from photographs [B, 3, H, W] in [0, 1], sides multiples of 32."""
    for module in model.modules():
        if isinstance(module, (ResidualBlock, WindowAttention)):
            _zero(module.project)
        elif isinstance(module, Modulation):
            _zero(module.maps)
    x = image - 0.5

    stem, _, to_16, _, to_32, _ = model.prior_analysis.body
    features = x
    for layer in (stem, to_16, to_32, model.prior_analysis.head):
        features = _project(layer, features)
    prior = model.prior_synthesis
    _transpose(prior.at_32[0], model.prior_analysis.head)
    _transpose(prior.at_16[0].conv, to_32)
    _transpose(prior.at_8[0].conv, to_16)
    _transpose(prior.preview.conv, stem)

    f8 = prior.at_8[0](prior.at_16[0](prior.at_32[0](features)))
    features = x - prior.preview(f8)
    for layer in (model.analysis.stem, model.analysis.down, model.analysis.head):
        features = _project(layer, features)
    _transpose(model.synthesis.stem, model.analysis.head)
    _transpose(model.synthesis.up.conv, model.analysis.down)
    _transpose(model.synthesis.head.conv, model.analysis.stem)
    # analysis: stem(x) + shift(f8) = stem(x - preview)
    shift = model.analysis.stem.weight.flatten(1) @ prior.preview.conv.weight.flatten(1)
    model.analysis.modulate_8.maps.weight[shift.shape[0] :, :, 0, 0] = -shift


def _project(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Makes a convolution without overlap the projection of its input on principal components; its output."""
    kernel = layer.kernel_size[0]
    blocks = F.unfold(x, kernel, stride=kernel).transpose(1, 2).flatten(0, 1).double()
    _, vectors = torch.linalg.eigh(blocks.T @ blocks)
    components = vectors.flip(1).T[: layer.out_channels]
    layer.weight.zero_()
    layer.weight[: len(components)] = components.view(-1, *layer.weight.shape[1:]).float()
    nn.init.zeros_(layer.bias)
    return layer(x)


def _transpose(synthesis: nn.Conv2d, analysis: nn.Conv2d) -> None:
    """Makes a 1x1 convolution (before a pixel shuffle, where `analysis` has a stride) undo a projection."""
    synthesis.weight[:] = analysis.weight.flatten(1).T[:, :, None, None]
    nn.init.zeros_(synthesis.bias)


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
