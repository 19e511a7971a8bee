"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., ICLR 2025), for many small matrices.

Learned codecs gain from it: rate and distortion pull on the same weights in different directions, which a diagonal
preconditioner cannot tell apart. The published implementations take one parameter at a time, which costs more than the
networks' own forward and backward pass on a CPU; here, matrices of one shape are one batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST, LARGEST = 32, 400
"""Matrices with a side below the first are left to Adam; sides above the second keep their basis."""
BETA = 0.95
"""Of both moments and of the preconditioner's average."""
REFRESH_EVERY = 20
"""Steps between two renewals of the bases."""
_FLOOR = 1e-5
"""Of the mean eigenvalue: added to all, so that no direction vanishes for want of gradients."""


class Soap(torch.optim.AdamW):
    """Steps weights of linear layers and convolutions as SOAP does, as matrices [out, in * kernel]; others as AdamW.

    Depthwise kernels, biases and tables are among the others. A parameter group's options are AdamW's; `lr` is SOAP's.
    All state stays where it is, on the parameters' device, so that a CUDA graph can hold a step: all but the first one,
    and without `renew_bases`.
    """

    found_inf: Tensor | None = None
    """1.0 where gradients are not finite and a step is to change nothing, else 0.0 (as GradScaler tells PyTorch's)."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. The gradients of parameters that SOAP took are gone afterwards."""
        for group in self.param_groups:
            for parameters in _matrices(group["params"]):
                self._step_matrices(parameters, group["lr"], group["eps"])
                for p in parameters:
                    p.grad = None
        return super().step(closure)

    @torch.no_grad()
    def renew_bases(self) -> None:
        """To be called after every `REFRESH_EVERY` steps."""
        for state in self.state.values():
            if "matrices" in state:
                _renew_bases(state)

    @torch.no_grad()
    def _step_matrices(self, parameters: list[nn.Parameter], rate: Tensor | float, eps: float) -> None:
        gradient = torch.stack([p.grad.reshape(len(p), -1) for p in parameters])
        bad = torch.zeros((), device=gradient.device) if self.found_inf is None else self.found_inf
        state = self.state[parameters[0]]
        if state.get("matrices") != len(parameters):  # as in Vyas et al., the first gradient only makes the bases
            if not bad:
                state.update(_initial_state(gradient))
            return
        gradient = torch.where(bad == 0, gradient, 0)
        taken = (1 - bad).to(gradient.dtype)
        weight = (1 - BETA) * taken
        state["step"] += taken
        mean, square = state["mean"], state["square"]
        mean.lerp_(gradient, weight)
        square.lerp_(_rotated(gradient, state).square(), weight)
        correction = (-torch.expm1(math.log(BETA) * state["step"])).clamp(min=1 - BETA)  # 1 - BETA ** step
        direction = _rotated(mean, state) / (square / correction).sqrt().add_(eps)
        update = _rotated_back(direction, state) * (-rate * taken / correction)
        torch._foreach_add_(parameters, [u.view_as(p) for u, p in zip(update, parameters, strict=True)])
        for side, product in _products(gradient).items():
            state[f"{side}_average"].lerp_(product, weight)


def _matrices(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Those with gradients that are matrices, by shape."""
    shapes = defaultdict(list)
    for p in parameters:
        if p.grad is not None and p.ndim >= 2 and min(len(p), p[0].numel()) >= SMALLEST:
            shapes[len(p), p[0].numel()].append(p)
    return list(shapes.values())


def _products(gradient: Tensor) -> dict[str, Tensor]:
    """G G^T and G^T G of the sides that have a basis."""
    rows, columns = gradient.shape[1:]
    products = {}
    if rows <= LARGEST:
        products["left"] = gradient @ gradient.mT
    if columns <= LARGEST:
        products["right"] = gradient.mT @ gradient
    return products


def _initial_state(gradient: Tensor) -> dict[str, Any]:
    state = {"matrices": len(gradient), "step": torch.zeros((), device=gradient.device),
             "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}  # fmt: skip
    for side, product in _products(gradient).items():
        state[f"{side}_average"] = product
        # In double: of a product of low rank, LAPACK's single precision at times returns NaN and no error.
        state[f"{side}_basis"] = torch.linalg.eigh(product.double())[1].flip(-1).to(product.dtype).contiguous()
    return state


def _rotated(matrix: Tensor, state: dict[str, Any]) -> Tensor:
    if "left_basis" in state:
        matrix = state["left_basis"].mT @ matrix
    return matrix @ state["right_basis"] if "right_basis" in state else matrix


def _rotated_back(matrix: Tensor, state: dict[str, Any]) -> Tensor:
    if "left_basis" in state:
        matrix = state["left_basis"] @ matrix
    return matrix @ state["right_basis"].mT if "right_basis" in state else matrix


def _renew_bases(state: dict[str, Any]) -> None:
    """One power iteration; the second moment follows the order of the eigenvalues."""
    for side, dim in (("left", 1), ("right", 2)):
        if f"{side}_basis" not in state:
            continue
        basis, average = state[f"{side}_basis"], state[f"{side}_average"]
        floor = _FLOOR * average.diagonal(dim1=1, dim2=2).mean(1)
        product = average @ basis + floor[:, None, None] * basis
        order = (basis * product).sum(1).argsort(-1, descending=True)
        columns, found = _orthogonal(product.gather(2, order[:, None].expand_as(product)))
        basis.copy_(torch.where(found[:, None, None], columns, basis))
        order = torch.where(found[:, None], order, torch.arange(order.shape[1], device=order.device))
        square = state["square"]
        square.copy_(square.gather(dim, order.unsqueeze(3 - dim).expand_as(square)))


def _orthogonal(columns: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of each matrix [B, n, n] made orthonormal from the first on, and whether that worked [B].

    They are nearly orthogonal, so that two Cholesky factorisations do it (CholeskyQR2: Yamamoto et al., ETNA 2015), of
    which a GPU does a whole batch at once; of QR decompositions it does one after the other.
    """
    q = columns.double()
    found = torch.ones(len(q), dtype=torch.bool, device=q.device)
    for _ in range(2):
        q = q / q.norm(dim=1, keepdim=True).clamp(min=1e-30)
        factor, failed = torch.linalg.cholesky_ex(q.mT @ q)
        q = torch.linalg.solve_triangular(factor.mT, q, upper=True, left=False)
        found &= failed == 0
    return q.to(columns.dtype), found & q.isfinite().flatten(1).all(1)
