"""Calibration: the ranges of activations that freezing the entropy path to integers needs."""

from __future__ import annotations

import torch

from condic.models.dcic_sgp import DcicSgp
from condic.models.exact import observe
from condic.training.data import CropSampler
from condic.training.evaluation import to_batch

BATCHES = 48


@torch.no_grad()
def calibrate(model: DcicSgp, sampler: CropSampler, device: torch.device, batches: int = BATCHES) -> None:
    """Records in the model the largest magnitude of every channel on its entropy path, over crops at all levels."""
    for record in model.ranges():
        record.peak.zero_()
    was_training = model.training
    model.eval()
    with observe(model):
        for step in range(batches):
            pixels, levels = sampler.at(step)
            levels[:2] = (0, sampler.levels - 1)[: len(levels)]
            model(to_batch(pixels, device), torch.from_numpy(levels).to(device))
    model.train(was_training)
