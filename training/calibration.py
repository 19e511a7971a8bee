"""Calibration of trained weights on photographs: what integers and the coder's tables are made from.

The ranges of activations that freezing the entropy path to integers needs, and how the symbols of each scale index are
really distributed: the tables of a mixture fitted to them take 1 to 3 % less than those of a Gaussian.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from condic.errors import InputError
from condic.models.codecs import Codec
from condic.models.entropy import (
    MAGNITUDES,
    GaussianConditional,
    interval_bits,
    mixture_of_scales,
    plain_gaussians,
    scale_table,
)
from condic.models.exact import observe
from condic.models.weights import check_finite
from condic.training.data import CropSampler
from condic.training.evaluation import to_batch

BATCHES = 48
_MOST_CROPS = 1536
_ASSUMED = 100.0
"""Symbols that each scale index is taken to have had besides those counted, distributed as a Gaussian."""
_ESCAPE_BITS = 31
"""What a symbol costs at most: the coder's rarest symbol, and 16 bits in full."""
_FIRST_GUESS = (0.2, 0.9, 1.5)
"""Where the fit begins: a mixture as `mixture_of_scales` has it."""
_ITERATIONS = 300


@torch.no_grad()
def calibrate(model: Codec, sampler: CropSampler, device: torch.device, batches: int = BATCHES) -> None:
    """Runs the model on crops at all levels, and records in it what it saw.

    That is the largest magnitude of every channel on an entropy path that becomes integers, and the mixture of
    Gaussians that the symbols of each scale index are like. About 1,536 crops are run at most, in whole batches. Raises
    InputError for weights that give no numbers.
    """
    for record in model.ranges():
        record.peak.zero_()
    conditionals = [m for m in model.modules() if isinstance(m, GaussianConditional)]
    for conditional in conditionals:
        conditional.counts = None
    ends = 0, sampler.levels - 1
    was_training = model.training
    model.eval()
    with observe(model):
        for step in range(min(batches, -(-_MOST_CROPS // sampler.batch))):
            pixels, levels = sampler.at(step)
            if len(levels) > 2:
                levels[:2] = ends
            elif step % 4 < 2:
                levels[0] = ends[step % 4]
            output = model(to_batch(pixels, device), torch.from_numpy(levels).to(device))
            if not output.image.isfinite().all():
                raise InputError("the model's pictures hold infinity or NaN: the training has diverged")
    model.train(was_training)
    counts = sum(c.counts.cpu() for c in conditionals if c.counts is not None)
    model.mixture.copy_(fit_mixture(counts))
    check_finite(model)


def fit_mixture(counts: Tensor) -> Tensor:
    """The mixtures (see `mixture_of_scales`) under which counted symbols take the fewest bits, float32 [S, 3].

    `counts` [S, MAGNITUDES] are of symbols by scale index and magnitude. An index that none had keeps its Gaussian.
    """
    seen = counts.sum(dim=1) > 0
    fitted = plain_gaussians(len(counts))
    if seen.any():
        with torch.enable_grad():
            fitted[seen] = _fewest_bits(counts[seen].double(), scale_table(len(counts))[seen]).float()
    return fitted


def _fewest_bits(symbols: Tensor, table: Tensor) -> Tensor:
    """For all indexes together, which is sooner done, unless that leads nowhere."""
    magnitude = torch.arange(MAGNITUDES, dtype=torch.float64)

    def bits(sigma: Tensor) -> Tensor:
        return interval_bits(magnitude, sigma[:, None])

    signs = torch.where(magnitude > 0, 2.0, 1.0)
    counts = symbols + _ASSUMED * signs * 2.0 ** -bits(table)
    share = counts / counts.sum(dim=1, keepdim=True)
    weight, *ratios = torch.tensor(_FIRST_GUESS, dtype=torch.float64)
    start = torch.stack([weight.logit(), *(ratio.log() for ratio in ratios)])
    free = start.repeat(len(counts), 1).requires_grad_()
    optimiser = torch.optim.LBFGS([free], max_iter=_ITERATIONS, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def mixture() -> Tensor:
        return torch.cat([free[:, :1].sigmoid(), free[:, 1:].exp()], dim=1)

    def closure() -> Tensor:
        optimiser.zero_grad()
        deviations, weights = mixture_of_scales(table, mixture())
        parts = [w.log2()[:, None] - bits(sigma) for sigma, w in zip(deviations.T, weights.T, strict=True)]
        parts.append(torch.full_like(parts[0], -_ESCAPE_BITS))
        loss = -(share * torch.logsumexp(torch.stack(parts) * math.log(2), dim=0)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    fitted = mixture().detach()
    if fitted.isfinite().all():
        return fitted
    if len(table) == 1:  # the search has left all numbers behind: few symbols, whose likelihood is flat
        return plain_gaussians(1).double()
    return torch.cat([_fewest_bits(row[None], sigma[None]) for row, sigma in zip(symbols, table, strict=True)])
