"""The rules of exactness in numbers of their own, checked on freshly frozen networks with uneven weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from condic.models.context import Context, HyperSynthesis, latent_exponents  # noqa: E402
from condic.models.exact import ExactConv, ExactTrunk, observe  # noqa: E402
from condic.models.presets import PRESETS  # noqa: E402

P = replace(PRESETS["t"], hyper=96, prior=96, entropy=96, main=64)
"""Wide enough for the sums to be what limits the steps."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def uneven(network: torch.nn.Module) -> None:
    """Output channels from a 16th to 16 times as large."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, ExactConv):
                factor = 2.0 ** (8 * torch.rand(len(layer.weight)) - 4)
                layer.weight *= factor.view(-1, 1, 1, 1)
                layer.bias *= factor


def check(layer: ExactConv, reads: int, extra: torch.Tensor | None = None) -> None:
    """`reads`: the largest magnitude that the layer's input can have."""
    assert reads <= 2047, "TF32 would round it"
    assert layer.int_weight.abs().max() <= 2047
    assert torch.equal(layer.int_bias, layer.int_bias.round())
    total = layer.int_weight.double().abs().sum(dim=(1, 2, 3)) * reads + layer.int_bias.double().abs()
    if extra is not None:
        total = total + layer.extra_as_integers(extra).abs().amax(dim=0)
    assert total.max() < 2**24


def highest(layer: ExactConv) -> int:
    return max(-layer.low, layer.high)


def exponents(layer: ExactConv) -> torch.Tensor:
    return torch.log2(layer.unit * layer.scale.double().flatten())


def check_trunk(trunk: ExactTrunk, reads: int, bias: torch.Tensor) -> int:
    check(trunk.entry, reads, bias)
    for block in trunk.blocks:
        check(block.depthwise, highest(trunk.entry))
        check(block.expand, highest(block.depthwise))
        check(block.project, highest(block.expand))
        assert highest(block.project) == highest(trunk.entry)
        assert torch.equal(exponents(block.project), exponents(trunk.entry)), "what is added has one exponent"
    return highest(trunk.entry)


def test_sums_of_a_context_stay_below_2_to_the_24_whatever_its_layers_hand_on() -> None:
    network, bias = Context(32, 64, 96, blocks=3).eval(), torch.randn(64, 96) * 3
    uneven(network.trunk)
    with torch.no_grad(), observe(network):
        for level in range(0, 64, 9):
            network((torch.randn(1, 32, 8, 8) * 12).round() / 4, bias[level, :, None, None])
    network.trunk.stream.peak[:8] *= 2.0**-20  # asks for steps that the sums do not allow
    network.freeze(latent_exponents(32), bias)
    stream = check_trunk(network.trunk, 1023, bias)
    for head in (network.mean, network.index):
        check(head, stream)
    assert (network.mean.low, network.mean.high) == (-32768, 32767)
    assert (network.index.low, network.index.high) == (0, 63)


def test_sums_of_the_hyper_synthesis_stay_below_2_to_the_24_whatever_its_layers_hand_on() -> None:
    network, bias = HyperSynthesis(P).eval(), torch.randn(64, P.entropy) * 3
    uneven(network)
    with torch.no_grad(), observe(network):
        for level in range(0, 64, 9):
            hyper, prior = ((torch.randn(1, c, s, s) * 12).round() / 4 for c, s in ((P.hyper, 4), (P.prior, 8)))
            network(hyper, prior, bias[level, :, None, None])
    for layer in (network.lift, network.head):
        layer.range.peak *= 2.0**-20  # asks for steps that the sums do not allow, some less than others
    exponent = network.freeze(bias)
    check(network.lift, 1023)
    stream = check_trunk(network.trunk, max(1023, highest(network.lift)), bias)
    check(network.head, stream)
    for layer in (network.lift, network.head):
        assert highest(layer) <= 1023, "contexts read it in long sums"
        together = exponents(layer).view(-1, 4)
        assert (together == together[:, :1]).all(), "four channels that become one have one exponent"
    assert torch.equal(exponents(network.head)[::4], exponent)


@pytest.mark.parametrize(("bias", "extra"), [(400704.0, 0.0), (400705.0, 0.0), (0.0, 400705.0), (0.0, 400703.6)])
def test_the_rounding_term_and_the_extra_bias_count_to_the_last_unit(bias: float, extra: float) -> None:
    """8 weights of 1000 by 2047, the bias, and 2^9 for rounding: 2^24 and more, which its parts alone do not reach."""
    layer = ExactConv(8, 1, relu=False)
    with torch.no_grad():
        layer.weight.fill_(1000)
        layer.bias.fill_(bias)
    rows = torch.tensor([[extra]])
    layer.freeze(torch.zeros(8).double(), 2047, out_exponent=torch.tensor([-10.0]).double(), extra=rows)
    check(layer, 2047, rows)


def test_a_layer_of_few_inputs_and_small_outputs_has_weights_of_eleven_bits_and_whole_biases() -> None:
    layer = ExactConv(64, 64, relu=False, depthwise=True)
    with torch.no_grad():
        layer.weight *= 0.01
        layer.weight[:, 0, 1, 1] = torch.rand(64) + 1
    layer.freeze(torch.zeros(64).double(), 1023, out_exponent=torch.full((64,), 20.0).double())
    check(layer, 1023)
    assert (layer.scale <= 0.5).all()
