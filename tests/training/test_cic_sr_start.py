"""Where each stage of cic-sr's training starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from condic.models.cic_sr import STAGES, CicSr
from condic.models.weights import load_weights
from condic.training.cic_sr_start import start_cic_sr
from condic.training.cli import train
from condic.training.data import CropSampler, load_photographs
from condic.training.evaluation import evaluate, to_batch

_CPU = torch.device("cpu")
_PARTS = {"low-resolution": ("lr",), "super-resolution": ("super_resolution",), "conditional": ("condition", "main")}


@pytest.fixture
def image(photographs: Path) -> torch.Tensor:
    """Sixteen crops, float32 [16, 3, 128, 128]."""
    crops, _ = CropSampler(load_photographs([photographs], 128).images, 128, 16, 64, 0).at(0)
    return to_batch(crops, _CPU).contiguous()


def _changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the model that differ."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("stage", list(_PARTS))
def test_a_stage_starts_what_it_trains_and_leaves_the_rest(image, stage):
    model = CicSr("t")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_cic_sr(model, [stage], image)
    assert _changed(before, model.state_dict()) == set(_PARTS[stage])


@pytest.mark.parametrize("blind", [None, "condition"])
def test_the_first_step_already_codes_pictures(photographs, image, blind):
    model = CicSr("t", blind=blind)
    start_cic_sr(model, STAGES, image)
    point = evaluate(model, load_photographs([photographs], 128).images[:2], _CPU, [63])[0]
    assert point.psnr > 24
    assert blind or point.psnr > point.preview_psnr + 1


def _run(photographs: Path, out: Path, stage: str, *more: str) -> dict[str, torch.Tensor]:
    words = ["--model", "cic-sr", "--preset", "t", "--stage", stage, "--data", str(photographs), "--crop", "128"]
    train.main([*words, "--steps", "1", "--learning-rate", "1e-12", "--out", str(out), *more], standalone_mode=False)
    model = CicSr("t")
    load_weights(model, out / "cic-sr-t.safetensors")
    return model.state_dict()


def test_a_run_starts_only_what_the_stages_of_its_weights_have_not_trained(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("condic.training.session._PIXELS_TO_START_FROM", 2**18)
    first = _run(photographs, tmp_path / "1", "low-resolution")
    second = _run(photographs, tmp_path / "2", "conditional", "--init", str(tmp_path / "1/cic-sr-t.safetensors"))
    assert _changed(first, second) == {"super_resolution", "condition", "main", "mixture"}
    third = _run(photographs, tmp_path / "3", "joint", "--init", str(tmp_path / "2/cic-sr-t.safetensors"))
    assert _changed(second, third) == {"mixture"}, "which calibration measures anew"


def test_a_run_of_a_stage_ends_with_an_evaluation_of_what_it_makes(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("condic.training.session._PIXELS_TO_START_FROM", 2**18)
    _run(photographs, tmp_path, "low-resolution", "--evaluate", str(photographs / "0.jpg"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (evaluation,) = (line for line in lines if line["kind"] == "evaluation")
    assert all(set(point["bpp"]) == {"lr_hyper", "lr"} for point in evaluation["points"])
