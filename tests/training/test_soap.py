"""SOAP steps matrices in the eigenbasis of their gradients, and everything else as AdamW does."""

import copy

import pytest
import torch
from torch import nn

from condic.training.soap import Soap, _initial_state, _orthogonal, _renew_bases

SIDE = 40


def orthogonal(seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[
        0
    ]


def quadratic(weight: torch.Tensor) -> torch.Tensor:
    """Of a matrix, with curvatures over four decades."""
    target = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return ((weight - target).square() * torch.logspace(-2, 2, SIDE, dtype=torch.float64)).mean()


def descend(optimiser: torch.optim.Optimizer, weight: nn.Parameter, steps: int) -> float:
    for _ in range(steps):
        optimiser.zero_grad()
        quadratic(weight).backward()
        optimiser.step()
    return quadratic(weight).item()


def path(kind: type[torch.optim.Optimizer], left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Where 30 steps lead when the problem is seen through a rotation of rows and of columns, rotated back."""
    weight = nn.Parameter(torch.zeros(SIDE, SIDE, dtype=torch.float64))
    optimiser = kind([weight], 0.05, weight_decay=0.0)
    for _ in range(30):
        optimiser.zero_grad()
        quadratic(left.mT @ weight @ right.mT).backward()
        optimiser.step()
    return (left.mT @ weight @ right.mT).detach()


def test_soap_takes_the_same_path_in_every_basis_and_adam_does_not():
    identity, rotation = torch.eye(SIDE, dtype=torch.float64), orthogonal(2)
    paths = {kind: (path(kind, identity, identity), path(kind, rotation, orthogonal(3)))
             for kind in (Soap, torch.optim.AdamW)}  # fmt: skip
    torch.testing.assert_close(*paths[Soap], rtol=0, atol=0.02)
    assert (paths[torch.optim.AdamW][0] - paths[torch.optim.AdamW][1]).abs().max() > 0.1


def test_vectors_and_depthwise_kernels_step_as_with_adam():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((7,), (64, 1, 3, 3), (20, 300))]
    theirs = copy.deepcopy(ours)
    optimisers = [kind(p, 1e-2, weight_decay=0.0) for kind, p in ((Soap, ours), (torch.optim.AdamW, theirs))]
    for _ in range(5):
        for optimiser, parameters in zip(optimisers, (ours, theirs), strict=True):
            for p in parameters:
                p.grad = p.detach().cos()
            optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_matrices_of_one_shape_do_not_disturb_each_other():
    alone, together, other = (nn.Parameter(torch.zeros(SIDE, SIDE, dtype=torch.float64)) for _ in range(3))
    first, second = Soap([alone], 0.02), Soap([together, other], 0.02)
    for _ in range(30):
        for optimiser, weights in ((first, [alone]), (second, [together, other])):
            optimiser.zero_grad()
            sum(k * quadratic(w) for k, w in enumerate(weights, start=1)).backward()
            optimiser.step()
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_a_saved_state_goes_on_as_if_nothing_had_happened(tmp_path):
    weight = nn.Parameter(torch.zeros(SIDE, SIDE, dtype=torch.float64))
    optimiser = Soap([weight], 0.02)
    descend(optimiser, weight, 25)
    torch.save((weight, optimiser.state_dict()), tmp_path / "state.pt")
    expected = descend(optimiser, weight, 25)

    weight, state = torch.load(tmp_path / "state.pt", weights_only=False)
    resumed = Soap([weight], 0.02)
    resumed.load_state_dict(state)
    assert descend(resumed, weight, 25) == expected


def test_gradients_of_low_rank_have_a_basis():
    """As of crops that hardly touch a layer: in single precision, eigenvectors of one in six of these are NaN."""
    generator = torch.Generator().manual_seed(11)
    weights = [nn.Parameter(torch.zeros(176, 176)) for _ in range(40)]
    optimiser = Soap(weights, 1e-3)
    for _ in range(2):
        for w in weights:
            used = torch.rand(176, generator=generator) < 0.45
            w.grad = torch.randn(176, 4, generator=generator) @ torch.randn(4, 176, generator=generator) * 1e-3 * used
        optimiser.step()
    assert all(w.isfinite().all() for w in weights)


def test_columns_become_those_of_a_qr_decomposition():
    columns = torch.linalg.qr(torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(4)))[0]
    columns = (columns + 0.02 * columns.roll(1, 2)) * torch.logspace(3, -3, SIDE)
    found, worked = _orthogonal(columns)
    assert worked.all()
    torch.testing.assert_close(found.mT @ found, torch.eye(SIDE).expand(3, -1, -1), rtol=0, atol=1e-6)
    expected = torch.linalg.qr(columns.double())[0].float()
    torch.testing.assert_close((found * expected).sum(1).abs(), torch.ones(3, SIDE), rtol=0, atol=1e-5)


def test_a_basis_that_cannot_be_renewed_stays():
    state = _initial_state(torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(5)))
    state["square"] = torch.rand(2, SIDE, SIDE)
    bases, square = state["left_basis"].clone(), state["square"].clone()
    state["left_average"][0] = torch.nan
    state["right_average"] *= 0
    _renew_bases(state)
    assert torch.equal(state["left_basis"][0], bases[0])
    assert not torch.equal(state["left_basis"][1], bases[1])
    assert torch.equal(state["square"][0], square[0])
    assert state["right_basis"].isfinite().all()


def test_the_first_step_is_as_long_as_adams() -> None:
    parameter = nn.Parameter(torch.zeros(32, 32))
    optimiser = Soap([parameter], 0.5, betas=(0.9, 0.99), weight_decay=0.0)
    torch.manual_seed(0)
    for _ in range(2):  # the first one only makes the bases
        parameter.grad = torch.randn(32, 32)
        optimiser.step()
    assert float(parameter.detach().norm()) == pytest.approx(0.5 * 32, rel=1e-3)
