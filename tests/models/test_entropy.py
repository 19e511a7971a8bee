"""Schedules and rates."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from condic.kernels import Tables, gaussian_tables, information_content  # noqa: E402
from condic.models.entropy import (  # noqa: E402
    MAGNITUDES,
    SCALES,
    GaussianConditional,
    clamp_inward,
    gaussian_bits,
    index_of_scale,
    latent_bits,
    mixture_of_scales,
    plain_gaussians,
    quadtree_boxes,
    quadtree_mask,
    scale_of_index,
    scale_table,
)
from condic.models.exact import observe, round_straight_through  # noqa: E402
from condic.models.sc_ar import GUARDED_SCALES, GuardedConditional  # noqa: E402


@pytest.mark.parametrize("channels", [4, 8, 96, 192])
def test_masks_and_boxes_are_the_same_schedule(channels: int) -> None:
    like = torch.zeros(2, channels, 8, 6)
    for step, boxes in enumerate(quadtree_boxes(channels)):
        drawn = torch.zeros(1, channels, 8, 6)
        for begin, end, row, column in boxes:
            drawn[:, begin:end, row::2, column::2] += 1
        assert torch.equal(drawn, quadtree_mask(step, like))


@pytest.mark.parametrize("channels", [4, 8, 96])
def test_four_steps_code_each_element_once_and_a_quarter_each(channels: int) -> None:
    like = torch.zeros(1, channels, 8, 6)
    masks = [quadtree_mask(step, like) for step in range(4)]
    assert torch.equal(sum(masks), torch.ones_like(like))
    assert {float(mask.mean()) for mask in masks} == {0.25}


def test_every_step_codes_another_phase_of_each_channel_group() -> None:
    steps = quadtree_boxes(8)
    for group in range(4):
        assert len({boxes[group][2:] for boxes in steps}) == 4
    for boxes in steps:
        assert len({box[2:] for box in boxes}) == 4, "and within a step every group its own"


def test_scales_run_from_0_11_to_64_in_even_steps() -> None:
    scales = scale_table()
    assert (len(scales), scales.dtype) == (SCALES, torch.float64)
    assert scales[0] == pytest.approx(0.11)
    assert scales[-1] == pytest.approx(64)
    assert torch.allclose(scales[1:] / scales[:-1], scales[1] / scales[0])
    for count in (SCALES, 24):
        assert torch.allclose(index_of_scale(scale_table(count), count), torch.arange(float(count)).double(), atol=1e-6)
        assert index_of_scale(torch.tensor([-1.0, 0.0, 1e9]), count).tolist() == pytest.approx([0, 0, count - 1])
    assert scale_of_index(torch.tensor([-3.0, 0.0, 63.0, 99.0])).tolist() == pytest.approx(
        [0.11, 0.11, 64, 64], rel=1e-5
    )


def test_estimated_bits_are_those_of_a_gaussian_on_unit_intervals() -> None:
    sigma = float(scale_table()[30])
    for value in (0.0, 1.0, -2.5):
        a, b = ((value + half) / sigma / math.sqrt(2) for half in (-0.5, 0.5))
        expected = -math.log2((math.erf(b) - math.erf(a)) / 2)
        assert gaussian_bits(torch.tensor([value]), torch.tensor([30.0])).item() == pytest.approx(expected, rel=1e-4)


def test_estimated_bits_are_those_that_the_coder_spends() -> None:
    generator = np.random.default_rng(0)
    tables = Tables(*gaussian_tables(scale_table().numpy()))
    indexes = generator.integers(2, SCALES, 20000).astype(np.uint8)
    symbols = np.rint(generator.normal(size=20000) * scale_table().numpy()[indexes]).astype(np.int16)
    estimate = gaussian_bits(torch.from_numpy(symbols).float(), torch.from_numpy(indexes).float()).sum().item()
    assert information_content(tables, symbols, indexes) == pytest.approx(estimate, rel=0.003)


def test_in_training_bits_are_those_of_rounding_with_the_gradients_of_noise() -> None:
    torch.manual_seed(0)
    residual = (0.3 * torch.randn(2, 4, 32, 32)).requires_grad_()
    index = torch.full_like(residual, 3.0).requires_grad_()
    wanted = latent_bits(residual, index, training=False)
    torch.manual_seed(1)
    bits = latent_bits(residual, index, training=True)
    assert torch.allclose(bits, wanted, rtol=1e-4)
    bits.sum().backward()
    torch.manual_seed(1)
    x = (residual.detach() + torch.rand_like(residual) - 0.5).requires_grad_()
    gaussian_bits(x, index.detach()).sum().backward()
    assert x.grad is not None
    assert torch.equal(residual.grad, x.grad)
    assert index.grad.abs().min() > 0


def test_noise_makes_the_smallest_scale_look_expensive() -> None:
    torch.manual_seed(0)
    y = 0.11 * torch.randn(100000)
    assert gaussian_bits(torch.round(y), torch.zeros(1)).mean() < 1e-3
    assert gaussian_bits(y + torch.rand_like(y) - 0.5, torch.zeros(1)).mean() == pytest.approx(0.29, abs=0.01)


@pytest.mark.parametrize("residual", [5.0, -40.0, 200.0, 1000.0, -3000.0])
def test_far_tails_keep_the_gradient_of_a_parabola(residual: float) -> None:
    """-log2 of a Gaussian's tail grows with the square of the distance, here at the smallest scale."""
    x = torch.tensor([residual], requires_grad=True)
    bits = gaussian_bits(x, torch.zeros(1))
    bits.sum().backward()
    assert bits.item() == pytest.approx(residual**2 / (2 * 0.11**2) / math.log(2), rel=0.25)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(math.copysign(abs(residual) - 0.5, residual) / 0.11**2 / math.log(2), rel=0.1)


def test_what_has_left_the_scale_table_can_come_back() -> None:
    index = torch.tensor([-3.0, -3.0, 70.0, 70.0, 10.0], requires_grad=True)
    gaussian_bits(torch.tensor([2.0, 0.0, 1.0, 500.0, 0.0]), index).sum().backward()
    assert index.grad is not None
    gradients = index.grad.tolist()
    assert gradients[0] < 0, "a larger scale would have been better"
    assert gradients[1] == 0, "a smaller one does not exist"
    assert gradients[2] > 0
    assert gradients[3] == 0
    assert gradients[4] > 0
    assert clamp_inward(torch.tensor([-1.0, 0.5, 7.0]), 0, 1).tolist() == [0, 0.5, 1]


def test_rounding_passes_gradients_through() -> None:
    x = torch.tensor([0.4, 1.6, -2.7], requires_grad=True)
    y = round_straight_through(x)
    y.sum().backward()
    assert y.tolist() == [0, 2, -3]
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]


def test_symbols_are_counted_while_observing() -> None:
    conditional = GaussianConditional().eval()
    residual = torch.tensor([0.4, -0.6, 1.4, -1.0, 5000.0, 0.0]).view(1, 1, 2, 3)
    index = torch.tensor([3.0, 3.2, 2.6, 70.0, 5.0, -2.0]).view(1, 1, 2, 3)
    conditional(residual, index)
    assert conditional.counts is None
    for times in (1, 2):
        with observe(conditional):
            conditional(residual, index)
        expected = torch.zeros(SCALES, MAGNITUDES, dtype=torch.int64)
        for row, magnitude, count in ((3, 0, 1), (3, 1, 2), (63, 1, 1), (5, MAGNITUDES - 1, 1), (0, 0, 1)):
            expected[row, magnitude] = count * times
        assert torch.equal(conditional.counts, expected)


def test_guarded_indexes_count_in_their_own_table_and_are_rounded_once_trained() -> None:
    conditional, table = GuardedConditional(), scale_table(GUARDED_SCALES)
    residual, index = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 11.4)
    conditional.eval()
    place = torch.tensor(math.log(float(table[11]) / 0.11) / math.log(64 / 0.11) * (SCALES - 1))
    assert conditional(residual, index).item() == pytest.approx(
        gaussian_bits(torch.tensor(2.0), place).item(), rel=1e-5
    )
    with observe(conditional):
        conditional(residual, index)
    assert conditional.counts.shape == (GUARDED_SCALES, MAGNITUDES)
    assert conditional.counts.nonzero().tolist() == [[11, 2]]
    conditional.train()
    index.requires_grad_()
    conditional(residual, index).sum().backward()
    assert index.grad.abs().item() > 0


def test_mixtures_are_in_units_of_the_scale_table() -> None:
    table = scale_table(GUARDED_SCALES)
    mixture = plain_gaussians(GUARDED_SCALES)
    mixture[5] = torch.tensor([0.25, 0.5, 2.0])
    deviations, weights = mixture_of_scales(table, mixture)
    assert deviations.dtype == weights.dtype == torch.float64
    assert deviations[5].tolist() == [0.5 * table[5], 2 * table[5]]
    assert weights[5].tolist() == [0.75, 0.25]
    assert torch.equal(deviations[4], table[4].repeat(2))
    assert weights[4].tolist() == [1, 0]
