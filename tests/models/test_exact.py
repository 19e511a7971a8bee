"""Exact layers: integers that stand for what was trained, the same in any arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from condic.errors import InputError  # noqa: E402
from condic.models.context import (  # noqa: E402
    CONTEXT_EXPONENT,
    CONTEXT_LIMIT,
    INDEX_EXPONENT,
    MEAN_EXPONENT,
    Context,
    HyperSynthesis,
    latent_exponents,
)
from condic.models.dcic_sgp import DcicSgp  # noqa: E402
from condic.models.exact import HIDDEN_LIMIT, STREAM_LIMIT, SUM_LIMIT, WEIGHT_LIMIT, ExactConv, Range, observe  # noqa: E402
from condic.models.presets import PRESETS  # noqa: E402
from condic.models.weights import load_weights  # noqa: E402

P = PRESETS["t"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@contextmanager
def in_float64(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    yield network.double()
    network.float()


def random_latent(channels: int, side: int = 8, spread: float = 3.0) -> torch.Tensor:
    """Decoded latents: multiples of 1/4, as contexts read them."""
    return (torch.randn(1, channels, side, side) * spread * 4).round() / 4


def frozen_context(inputs: int = 16, channels: int = 8, width: int = 24) -> tuple[Context, torch.Tensor, torch.Tensor]:
    """A calibrated context with its inputs and quality bias, still in float form."""
    network = Context(inputs, channels, width, blocks=2).eval()
    bias = torch.randn(64, width) * 0.3
    x = random_latent(inputs)
    with torch.no_grad(), observe(network):
        for level in range(0, 64, 9):
            network(x, bias[level, :, None, None])
    return network, x, bias


def test_a_frozen_context_agrees_with_the_float_one() -> None:
    network, x, bias = frozen_context()
    rows = bias[36][None, :, None, None]
    with torch.no_grad():
        mean, index = network(x, rows).chunk(2, dim=1)
        network.freeze(latent_exponents(16), bias)
        integer_bias = network.trunk.entry.extra_as_integers(bias)[36][None, :, None, None].float()
        frozen_mean, frozen_index = network(x * 2**CONTEXT_EXPONENT, integer_bias).chunk(2, dim=1)
    assert (frozen_mean / 2**MEAN_EXPONENT - mean).abs().max() < 0.1
    assert (frozen_index - index).abs().max() < 1
    assert torch.equal(frozen_mean, frozen_mean.round())
    assert torch.equal(frozen_index, frozen_index.round())


def test_integers_in_training_are_the_frozen_ones_and_have_gradients() -> None:
    network, x, bias = frozen_context()
    network.freeze(latent_exponents(16), bias)
    extra = network.trunk.entry.extra_as_integers(bias)[36][None, :, None, None].float()
    steps = (x * 2**CONTEXT_EXPONENT).round().clip(-CONTEXT_LIMIT, CONTEXT_LIMIT)
    with torch.no_grad():
        frozen = network.eval()(steps, extra)
    trained = network.train()(steps, extra)
    assert torch.equal(trained, frozen)
    trained.sum().backward()
    assert all(bool(p.grad.any()) for name, p in network.named_parameters() if name.endswith("weight"))


def test_a_frozen_context_gives_the_same_bits_in_float32_and_float64() -> None:
    network, _, bias = frozen_context()
    with torch.no_grad():
        network.freeze(latent_exponents(16), bias)
        extra = network.trunk.entry.extra_as_integers(bias)[7][None, :, None, None].float()
        for spread in (0.5, 5, 1e4):
            x = (torch.randn(1, 16, 9, 7) * spread).round().clip(-CONTEXT_LIMIT, CONTEXT_LIMIT)
            single = network(x, extra)
            with in_float64(network):
                double = network(x.double(), extra.double())
            assert torch.equal(single.double(), double)
            assert single.abs().max() > 0


def test_the_order_of_summation_changes_nothing_once_frozen() -> None:
    """Permuted channels are another order; in float form the same permutation does change bits."""
    layer = ExactConv(512, 8, relu=False)
    x, order = torch.randn(1, 512, 16, 16), torch.randperm(512)
    float_sums = [
        torch.nn.functional.conv2d(x[:, o], layer.weight[:, o], layer.bias) for o in (torch.arange(512), order)
    ]
    assert not torch.equal(*float_sums)
    with torch.no_grad(), observe(layer):
        layer(x)
    layer.freeze(
        torch.full((512,), 6.0, dtype=torch.float64),
        HIDDEN_LIMIT,
        out_exponent=torch.full((8,), 8.0, dtype=torch.float64),
    )
    integers = (x * 2**6).round().clip(-HIDDEN_LIMIT, HIDDEN_LIMIT)
    sums = [
        torch.nn.functional.conv2d(integers[:, o], layer.int_weight[:, o], layer.int_bias)
        for o in (torch.arange(512), order)
    ]
    assert torch.equal(*sums)


def test_pixels_of_a_shuffle_that_need_other_steps_get_the_same_ones() -> None:
    """One of the four has large weights and small outputs: alone it cannot have the steps that its outputs ask for."""
    network = HyperSynthesis(P).eval()
    hyper, prior, bias = random_latent(P.hyper, 4), random_latent(P.prior, 8), torch.zeros(64, P.entropy)
    with torch.no_grad():
        network.lift.weight *= 0.01
        network.lift.weight[::4] *= 400
        network.lift.bias.fill_(0.01)
        network.lift.bias[::4] = -40
        network.trunk.entry.weight[:, : P.entropy] *= 20
        with observe(network):
            expected = network(hyper, prior, bias[:1, :, None, None])
        lift = network.lift
        wanted = lift.range.exponent(HIDDEN_LIMIT, tie=4)
        alone = lift.freeze(latent_exponents(P.hyper), CONTEXT_LIMIT, out_exponent=wanted).view(-1, 4)
        assert (alone[:, 0] < alone[:, 1]).any()
        lift.frozen = False
        exponent = network.freeze(bias)
        extra = torch.zeros(1, P.entropy, 1, 1)
        frozen = network(hyper * 2**CONTEXT_EXPONENT, prior * 2**CONTEXT_EXPONENT, extra)
    real = frozen / 2 ** exponent.float().view(1, -1, 1, 1)
    assert (real - expected).abs().max() < 0.02 * expected.abs().max()


def test_hyper_synthesis_agrees_with_its_float_form_and_is_exact() -> None:
    network = HyperSynthesis(P).eval()
    hyper, prior, bias = random_latent(P.hyper, 4), random_latent(P.prior, 8), torch.randn(64, P.entropy) * 0.3
    with torch.no_grad():
        with observe(network):
            for level in range(64):
                expected = network(hyper, prior, bias[level][None, :, None, None])
        expected = network(hyper, prior, bias[20][None, :, None, None])
        exponent = network.freeze(bias)
        extra = network.trunk.entry.extra_as_integers(bias)[20][None, :, None, None].float()
        inputs = (hyper * 2**CONTEXT_EXPONENT, prior * 2**CONTEXT_EXPONENT, extra)
        frozen = network(*inputs)
        with in_float64(network):
            assert torch.equal(network(*[x.double() for x in inputs]), frozen.double())
    assert frozen.shape == (1, P.main, 16, 16)
    real = frozen / 2 ** exponent.float().view(1, -1, 1, 1)
    assert (real - expected).abs().max() < 0.02 * expected.abs().max()
    assert frozen.min() >= 0
    assert frozen.max() <= HIDDEN_LIMIT


@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("depthwise", [False, True])
def test_sums_stay_below_2_to_the_24_for_weights_of_any_size(scale: float, depthwise: bool) -> None:
    layer = ExactConv(96, 96, relu=False, depthwise=depthwise)
    with torch.no_grad():
        layer.weight *= scale
        layer.bias *= scale
    extra = torch.randn(64, 96) * scale
    layer.range.peak = torch.full((96,), 50.0 * scale)
    layer.freeze(
        torch.zeros(96, dtype=torch.float64), STREAM_LIMIT, out_exponent=layer.range.exponent(HIDDEN_LIMIT), extra=extra
    )
    integers = layer.extra_as_integers(extra)
    total = (
        layer.int_weight.abs().double().sum(dim=(1, 2, 3)) * STREAM_LIMIT
        + layer.int_bias.abs()
        + integers.abs().amax(dim=0)
    )
    assert total.max() < SUM_LIMIT
    assert layer.int_weight.abs().max() <= WEIGHT_LIMIT
    assert torch.equal(layer.int_weight, layer.int_weight.round())
    assert torch.equal(layer.int_bias, layer.int_bias.round())
    mantissa, exponent = torch.frexp(layer.scale)
    assert (mantissa == 0.5).all()
    assert (exponent <= 0).all(), "a shift of at least 1 leaves room for the rounding term"


def test_requantisation_rounds_half_up_and_clips() -> None:
    layer = ExactConv(1, 1, relu=False, limit=10)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.fill_(0)
    layer.freeze(torch.tensor([2.0], dtype=torch.float64), 100, out_exponent=torch.tensor([0.0], dtype=torch.float64))
    x = torch.tensor([-100, -42, -7, -6, -5, -2, -1, 0, 1, 2, 5, 6, 7, 42, 100.0]).view(1, 1, 1, -1)
    expected = torch.floor(x / 4 + 0.5).clip(-10, 10)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)


def test_weights_too_large_for_their_head_are_refused() -> None:
    network, _, bias = frozen_context()
    with torch.no_grad():
        network.mean.weight *= 1e9
    with pytest.raises(InputError, match="cannot become integers: too large"):
        network.freeze(latent_exponents(16), bias)


def test_a_range_records_only_while_observing() -> None:
    layer = Range(2)
    layer.record(torch.full((1, 2, 1, 1), 5.0))
    assert layer.peak.tolist() == [0, 0]
    with observe(layer):
        layer.record(torch.tensor([1.0, -7.0]).view(1, 2, 1, 1))
        layer.record(torch.tensor([-3.0, 2.0]).view(1, 2, 1, 1))
    layer.record(torch.full((1, 2, 1, 1), 9.0))
    assert layer.peak.tolist() == [3, 7]
    assert layer.exponent(1023).tolist() == [8, 7]
    assert layer.exponent(1023, tie=2).tolist() == [7, 7]


@pytest.fixture
def model(data_folder: Path) -> DcicSgp:
    network = DcicSgp("t")
    load_weights(network, data_folder / "dcic-sgp-t.safetensors")
    return network.eval()


def test_the_whole_entropy_path_of_trained_weights_agrees_with_its_float_form(model: DcicSgp) -> None:
    """Mean and scale index of every context, on latents like the ones that calibration saw."""
    import copy

    frozen = copy.deepcopy(model)
    with torch.no_grad():
        frozen.freeze()
        latent = random_latent(P.prior, 16, spread=1)
        for k in range(3):
            role = f"prior_context_{k + 1}"
            rows = model.quality_bias[role].rows()
            network = frozen.prior_context[k]
            extra = network.trunk.entry.extra_as_integers(frozen.quality_bias[role].rows())[32][
                None, :, None, None
            ].float()
            expected = model.prior_context[k](latent, rows[32][None, :, None, None])
            got = network(latent * 2**CONTEXT_EXPONENT, extra)
            mean, index = expected.chunk(2, dim=1)
            frozen_mean, frozen_index = got.chunk(2, dim=1)
            assert (frozen_mean / 2**MEAN_EXPONENT - mean).abs().mean() < 0.05
            assert (frozen_index - index.clip(0, 63)).abs().mean() < 0.6
    assert INDEX_EXPONENT == 3
