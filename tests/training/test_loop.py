"""Runs of condic-train on preset t: resuming, bad losses, signals, errors."""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from condic.errors import InputError
from condic.export.cli import export
from condic.models.dcic_sgp import DcicSgp
from condic.models.quality import LAMBDA_RANGE, LevelTable
from condic.models.weights import check_calibrated, load_weights, read_metadata, save_weights
from condic.training import loop, step
from condic.training.checkpoint import CHECKPOINT_VERSION, load_checkpoint, save_checkpoint
from condic.training.cli import train
from condic.training.data import CropSampler, load_photographs
from condic.training.evaluation import evaluate
from condic.training.session import _loss_and_lambdas, _report_freezing

_CPU = torch.device("cpu")


def _trainer(out: Path, *, steps: int = 6, seed: int = 0, every: float = 180.0) -> loop.Trainer:
    out.mkdir(exist_ok=True)
    settings = loop.Settings("dcic-sgp", "t", "mse", steps, None, 2, 128, 1e-3, seed, out, checkpoint_every=every)
    torch.manual_seed(seed)
    return loop.Trainer(settings, DcicSgp("t"), _CPU)


def _sampler(folder: Path) -> CropSampler:
    return CropSampler(load_photographs([folder], 128).images, 128, 2, 64, 0)


def _count(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[None]:
    """A list that grows with every call of a method."""
    calls, method = list[None](), getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *words: (calls.append(None), method(*words))[1])
    return calls


class _StopAfter:
    """Asks the run to stop, as Ctrl-C does, after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, progress: loop.Progress) -> None:
        if progress.step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)

    def points(self, step: int, points: object) -> None:
        """Nothing depends on evaluations."""


def test_a_stopped_and_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Path, photographs: Path) -> None:
    sampler = _sampler(photographs)
    whole = _trainer(tmp_path / "whole")
    whole.run(sampler, 1, [])
    part = _trainer(tmp_path / "part")
    part.run(sampler, 1, [_StopAfter(3)])
    assert part.step == 3
    resumed = _trainer(tmp_path / "part", seed=0)
    resumed.resume(load_checkpoint(tmp_path / "part" / "checkpoint.pt", "dcic-sgp", "t"))
    assert resumed.seconds == part.seconds > 0
    resumed.run(sampler, 1, [])
    assert resumed.step == whole.step == 6
    for name, tensor in whole.ema.items():
        assert torch.allclose(tensor, resumed.ema[name], atol=1e-5), name


def test_learning_rates_warm_up_and_fall_in_each_part_of_a_run(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, steps=1000)
    trainer.settings = replace(trainer.settings, entropy_fraction=0.2)
    for done, share, entropy in (
        (0, 0.1, 3),
        (5, 0.5990844, 3),
        (100, 0.505, 3),
        (200, 0.1, 1),
        (600, 0.505, 1),
        (1000, 0.01, 1),
    ):
        trainer.step = done
        assert trainer._learning_rates() == pytest.approx((3e-3 * share, entropy * 1e-3 * share, 1e-3 * share))
    tables, entropy_path, transforms = ({id(p) for p in g["params"]} for g in trainer.optimiser.param_groups)
    of_entropy = {id(p) for _, p in trainer.model.entropy_path_parameters()}
    assert tables == {id(p) for m in trainer.model.modules() if isinstance(m, LevelTable) for p in m.parameters()}
    assert entropy_path == of_entropy - tables
    assert transforms == {id(p) for p in trainer.model.parameters()} - of_entropy - tables


def test_a_run_ends_by_its_steps_or_its_time_whichever_comes_first(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, steps=10)
    trainer.step, trainer.seconds = 5, 30.0
    for steps, budget, done in ((10, None, 0.5), (None, 40, 0.75), (10, 40, 0.75), (10, 300, 0.5), (0, None, 1.0)):
        trainer.settings = replace(trainer.settings, steps=steps, budget=budget)
        assert trainer.fraction() == done


@pytest.mark.parametrize(("done", "share"), [(0, 0.9), (10**6, 0.001)])
def test_the_average_follows_fast_at_first(tmp_path: Path, photographs: Path, done: int, share: float) -> None:
    trainer = _trainer(tmp_path)
    trainer.step = done
    before = {name: tensor.clone() for name, tensor in trainer.ema.items()}
    trainer._take_step(*_sampler(photographs).at(0))
    for name, tensor in trainer.model.state_dict().items():
        assert torch.allclose(trainer.ema[name], torch.lerp(before[name], tensor, share), atol=1e-6), name


def test_bases_are_renewed_once_there_is_more_than_their_gradient_and_every_20_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, renewed = _trainer(tmp_path), list[int]()
    monkeypatch.setattr(trainer._training_step, "run", lambda *_, **__: None)
    monkeypatch.setattr(trainer.optimiser, "renew_bases", lambda: renewed.append(trainer.step))
    for _ in range(45):
        trainer._take_step(None, None)
    assert renewed == [2, 22, 42]


def test_a_run_that_fails_leaves_no_threads_at_work(tmp_path: Path, photographs: Path) -> None:
    broken = SimpleNamespace(step=lambda progress: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:  # what it holds lives on
        _trainer(tmp_path).run(_sampler(photographs), 1, [broken])
    assert caught
    assert not [x.name for x in threading.enumerate() if x.name.startswith("crops")]


def test_while_the_entropy_path_learns_alone_nothing_else_changes(tmp_path: Path, photographs: Path) -> None:
    trainer, sampler = _trainer(tmp_path), _sampler(photographs)
    trainer.settings = replace(trainer.settings, entropy_fraction=1.0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for k in range(2):
        trainer._take_step(*sampler.at(k))
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert changed <= dict(trainer.model.entropy_path_parameters()).keys()


def test_the_average_is_what_is_calibrated_and_written(tmp_path: Path, photographs: Path) -> None:
    trainer = _trainer(tmp_path)
    average = trainer.ema["synthesis.head.conv.weight"].mul_(0.5).clone()
    trainer.calibrate(_sampler(photographs))
    assert torch.equal(_loaded(trainer.settings.weights_path).synthesis.head.conv.weight, average.half().float())


def test_the_share_of_the_prior_reaches_the_loss(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, loss = [], step.rate_distortion
    monkeypatch.setattr(step, "rate_distortion", lambda *words: (seen.append(words[-2:]), loss(*words))[1])
    settings = replace(_trainer(tmp_path).settings, prior_share=0.25)
    loop.Trainer(settings, DcicSgp("t"), _CPU)._take_step(*_sampler(photographs).at(0))
    assert seen == [("mse", 0.25)]


def test_evaluations_see_the_average_take_no_time_and_change_nothing(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, whole = _sampler(photographs), _trainer(tmp_path / "whole", steps=3)
    whole.run(sampler, 1, [])
    seconds, saved, seen = itertools.count(), [], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(seconds) + 1000 * len(seen)))

    def note(model: DcicSgp, *_: object) -> list[object]:
        seen.append([torch.equal(tensor, trainer.ema[name]) for name, tensor in model.state_dict().items()])
        return []

    monkeypatch.setattr(loop, "evaluate", note)
    monkeypatch.setattr(loop, "save_checkpoint", lambda checkpoint, path: saved.append(checkpoint.step))
    trainer = _trainer(tmp_path / "run", steps=3, every=999)
    trainer.settings = replace(trainer.settings, evaluate_every=2)
    forgotten = _count(monkeypatch, trainer._training_step, "forget")
    trainer.run(sampler, 1, [], sampler.images[:1])
    assert len(forgotten) == 1, "what was captured has other tensors"
    assert (len(seen), saved) == (1, [3, 3])
    assert trainer.seconds < 100
    assert all(seen[0])
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, trainer.model.state_dict()[name]), name


def test_checkpoints_are_written_at_intervals(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, saved = itertools.count(step=10), []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(loop, "save_checkpoint", lambda checkpoint, path: saved.append(checkpoint.step))
    _trainer(tmp_path, steps=7, every=45).run(_sampler(photographs), 1, [])
    assert saved == [3, 6, 7]


def test_noise_of_a_gpu_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"cuda:1": torch.tensor([1, 2], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state}))
    trainer = _trainer(tmp_path)
    trainer.device = torch.device("cuda:1")  # asked for no more than its noise
    trainer.save()
    states["cuda:1"] = torch.zeros(2, dtype=torch.uint8)
    checkpoint = load_checkpoint(trainer.settings.checkpoint_path, "dcic-sgp", "t")
    trainer.resume(checkpoint)
    assert states["cuda:1"].tolist() == [1, 2]
    trainer.device = _CPU
    trainer.save()
    assert load_checkpoint(trainer.settings.checkpoint_path, "dcic-sgp", "t").cuda_rng is None


def test_a_run_goes_on_only_with_the_options_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = _trainer(tmp_path / "run")
    begun.save()
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint.pt", "dcic-sgp", "t")
    assert checkpoint.entropy_fraction == begun.settings.entropy_fraction
    forgotten = _count(monkeypatch, begun._training_step, "forget")
    begun.resume(checkpoint)
    assert len(forgotten) == 1, "what was captured has other tensors"
    begun.settings = replace(begun.settings, blind="analysis")
    with pytest.raises(InputError, match="a run with blind None, asked for analysis"):
        begun.resume(checkpoint)


def test_training_improves_the_pictures(tmp_path: Path, photographs: Path) -> None:
    sampler = _sampler(photographs)
    trainer = _trainer(tmp_path / "run", steps=60)
    before = trainer.evaluate(sampler.images[:2])
    trainer.run(sampler, 1, [])
    after = trainer.evaluate(sampler.images[:2])
    assert after[-1].psnr > before[-1].psnr + 1


class _Heard:
    """Keeps what listeners are told."""

    def __init__(self) -> None:
        self.progress: list[loop.Progress] = []

    def step(self, progress: loop.Progress) -> None:
        self.progress.append(progress)

    def points(self, step: int, points: object) -> None:
        """Nothing depends on evaluations."""


def test_a_report_is_the_mean_of_the_steps_since_the_last(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, each, some = _sampler(photographs), _Heard(), _Heard()
    _trainer(tmp_path / "each", steps=7).run(sampler, 1, [each])
    monkeypatch.setitem(loop.REPORT_EVERY, "cpu", 3)  # as on a GPU, where it is 25
    _trainer(tmp_path / "some", steps=7).run(sampler, 1, [some])
    assert [p.step for p in each.progress] == [1, 2, 3, 4, 5, 6, 7]
    assert [p.step for p in some.progress] == [3, 6]
    for k, reported in enumerate(some.progress):
        steps = each.progress[3 * k : 3 * k + 3]
        assert reported.loss == pytest.approx(sum(p.loss for p in steps) / 3, rel=1e-3)
        assert reported.bpp["main"] == pytest.approx(sum(p.bpp["main"] for p in steps) / 3, rel=1e-3)
        seconds = reported.seconds - (some.progress[k - 1].seconds if k else 0)
        assert reported.crops_per_second == pytest.approx(3 * 2 / seconds)


def test_a_line_of_the_log_is_the_mean_of_the_steps_since_the_last(tmp_path: Path, photographs: Path) -> None:
    heard = _Heard()
    log = loop.MetricsLog(tmp_path / "log.jsonl", every=3)
    _trainer(tmp_path, steps=7).run(_sampler(photographs), 1, [heard, log])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    for k, row in enumerate(rows):
        steps = heard.progress[3 * k : 3 * k + 3]
        assert row["loss"] == pytest.approx(sum(p.loss for p in steps) / 3)
        assert row["bpp"]["main"] == pytest.approx(sum(p.bpp["main"] for p in steps) / 3)
        assert row["seconds"] == steps[-1].seconds


def test_lines_beyond_where_a_run_goes_on_are_dropped(tmp_path: Path) -> None:
    """What a killed run wrote after its last checkpoint comes again; a line that it had begun is none."""
    path = tmp_path / "log.jsonl"
    rows = [json.dumps({"kind": kind, "step": step}) for step in (2, 4, 6) for kind in ("step", "evaluation")]
    path.write_text("\n".join([*rows, '{"kind": "st']))
    loop.MetricsLog(path, 4).points(5, [])
    assert path.read_text().splitlines() == [*rows[:4], '{"kind": "evaluation", "step": 5, "points": []}']


def test_a_run_that_has_had_its_length_says_so(tmp_path: Path, photographs: Path) -> None:
    words = f"--preset t --data {photographs} --crop 128 --batch 1 --out {tmp_path} --steps 1".split()
    assert CliRunner().invoke(train, words).exit_code == 0
    words += ["--time-budget", "3m", "--resume", str(tmp_path / "checkpoint.pt")]
    again = CliRunner().invoke(train, words, catch_exceptions=False)
    assert again.exit_code == 0
    assert "has had all of 1 steps or 3 minutes; for more training" in " ".join(again.stderr.split())


def test_weights_of_a_run_from_others_do_not_have_their_calibration(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do those that a killed run leaves."""
    words = f"--preset t --data {photographs} --crop 128 --batch 1 --steps 2".split()
    assert CliRunner().invoke(train, [*words, "--out", str(tmp_path / "a")]).exit_code == 0
    first = tmp_path / "a" / "dcic-sgp-t.safetensors"
    check_calibrated(_loaded(first), first)

    def killed(*_: object) -> None:
        raise SystemExit(9)

    monkeypatch.setattr(loop, "calibrate", killed)
    CliRunner().invoke(train, [*words, "--init", str(first), "--out", str(tmp_path / "b")])
    second = tmp_path / "b" / "dcic-sgp-t.safetensors"
    model = _loaded(second)
    assert torch.equal(model.mixture, DcicSgp("t").mixture)
    with pytest.raises(InputError, match="not calibrated"):
        check_calibrated(model, second)


def _loaded(path: Path) -> DcicSgp:
    model = DcicSgp("t")
    load_weights(model, path)
    return model


def test_ten_losses_in_a_row_that_are_not_finite_stop_the_run(tmp_path: Path, photographs: Path) -> None:
    trainer = _trainer(tmp_path / "run", steps=50, every=-1)
    trainer.save()
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        trainer.model.synthesis.head.conv.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="10 steps in a row"):
        trainer.run(_sampler(photographs), 1, [])
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_steps_skipped_since_the_last_report_count_at_the_end(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loop.REPORT_EVERY, "cpu", 3)
    trainer = _trainer(tmp_path, steps=4)
    monkeypatch.setattr(trainer, "save", lambda: None)
    with torch.no_grad():
        trainer.model.synthesis.head.conv.bias.fill_(float("nan"))
    trainer.run(_sampler(photographs), 1, [])
    assert trainer.skipped == 4


def test_skipped_steps_are_counted_on_when_a_run_is_resumed(tmp_path: Path, photographs: Path) -> None:
    trainer, resumed = _trainer(tmp_path), _trainer(tmp_path)
    trainer.skipped = 4
    trainer.save()
    resumed.resume(load_checkpoint(trainer.settings.checkpoint_path, "dcic-sgp", "t"))
    assert resumed.skipped == 4
    resumed._take_step(*_sampler(photographs).at(0))
    assert resumed._training_step.report().skipped == 4


@pytest.mark.parametrize(("low", "high"), [("0", "1"), ("-1", "1"), ("nan", "1"), ("0.09", "0.09"), ("1", "inf")])
def test_lambdas_that_are_none_are_told(low: str, high: str) -> None:
    with pytest.raises(InputError, match="no lambdas that fit it: they are damaged"):
        _loss_and_lambdas({"lowest_lambda": low, "highest_lambda": high})


def test_a_checkpoint_of_another_preset_is_named(tmp_path: Path) -> None:
    _trainer(tmp_path / "run").save()
    with pytest.raises(InputError, match="preset t, asked for dcic-sgp preset s"):
        load_checkpoint(tmp_path / "run" / "checkpoint.pt", "dcic-sgp", "s")
    with pytest.raises(InputError, match="dcic-sgp preset t, asked for cic-sr preset t"):
        load_checkpoint(tmp_path / "run" / "checkpoint.pt", "cic-sr", "t")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    torch.save({name: value for name, value in state.items() if name != "ema"}, tmp_path / "less.pt")
    damaged = bytearray((tmp_path / "run" / "checkpoint.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.pt").write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged\.pt: a damaged checkpoint \(.*has another checksum\)"):
        load_checkpoint(tmp_path / "damaged.pt", "dcic-sgp", "t")
    (tmp_path / "run.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"not a condic checkpoint .*; weights are given with --init"):
        load_checkpoint(tmp_path / "run.safetensors", "dcic-sgp", "t")
    for name in ("junk", "less"):
        with pytest.raises(InputError, match=rf"{name}\.pt: not a condic checkpoint"):
            load_checkpoint(tmp_path / f"{name}.pt", "dcic-sgp", "t")


def test_a_checkpoint_of_another_version_is_refused_and_one_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    _trainer(tmp_path).save()
    checkpoint = load_checkpoint(path, "dcic-sgp", "t")
    for version in (CHECKPOINT_VERSION - 1, CHECKPOINT_VERSION + 1):
        save_checkpoint(replace(checkpoint, version=version), path)
        with pytest.raises(InputError, match=f"version {version}, this condic reads {CHECKPOINT_VERSION}"):
            load_checkpoint(path, "dcic-sgp", "t")
    torch.save({"version": Path()}, path)  # an object that a constructor makes
    with pytest.raises(InputError, match=r"not a condic checkpoint \(UnpicklingError\)"):
        load_checkpoint(path, "dcic-sgp", "t")


def test_a_run_that_is_stopped_says_so_and_how_to_go_on(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.MetricsLog, "step", lambda self, progress: _StopAfter(2).step(progress))
    monkeypatch.setattr(loop.Trainer, "evaluate", lambda *_: pytest.fail("it was stopped"))
    words = ["--preset", "t", "--data", str(photographs), "--crop", "128", "--batch", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(train, [*words, "--steps", "8", "--evaluate", str(photographs)], catch_exceptions=False)
    assert done.exit_code == 130
    assert "stopped at 25%; go on with --resume" in " ".join(done.stderr.split())
    words += ["--steps", "3", "--resume", str(tmp_path / "checkpoint.pt")]
    assert CliRunner().invoke(train, words, catch_exceptions=False).exit_code == 0


def test_a_run_is_not_replaced_unless_that_is_asked_for(tmp_path: Path, photographs: Path) -> None:
    words = ["--preset", "t", "--data", str(photographs), "--crop", "128", "--batch", "2", "--out", str(tmp_path)]
    rows = tmp_path / "metrics.jsonl"
    assert CliRunner().invoke(train, [*words, "--steps", "2", "--evaluate", str(photographs)]).exit_code == 0
    first = rows.read_text()
    again = CliRunner().invoke(train, [*words, "--steps", "2"])
    assert isinstance(again.exception, InputError)
    assert f"holds a run; go on with --resume {tmp_path / 'checkpoint.pt'}" in str(again.exception)
    checkpoint = tmp_path / "checkpoint.pt"
    on = CliRunner().invoke(train, [*words, "--steps", "3", "--resume", str(checkpoint)], catch_exceptions=False)
    assert on.exit_code == 0
    assert rows.read_text().startswith(first)
    assert load_checkpoint(checkpoint, "dcic-sgp", "t").step == 3
    assert CliRunner().invoke(train, [*words, "--steps", "1", "--force"], catch_exceptions=False).exit_code == 0
    assert not rows.exists() or first not in rows.read_text()
    assert load_checkpoint(checkpoint, "dcic-sgp", "t").step == 1


def test_a_run_that_goes_on_elsewhere_does_not_replace_one_either(tmp_path: Path, photographs: Path) -> None:
    for name in ("here", "there"):
        _trainer(tmp_path / name).save()
    words = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 9 --out {tmp_path / 'here'}".split()
    done = CliRunner().invoke(train, [*words, "--resume", str(tmp_path / "there" / "checkpoint.pt")])
    assert isinstance(done.exception, InputError)
    assert "holds a run" in str(done.exception)


def test_weights_come_back_from_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condic.models.weights.SHARD_BYTES", 2**16 + 60_000)
    model = DcicSgp("t")
    paths = save_weights(model.state_dict(), tmp_path / "w.safetensors", {"step": "3"})
    assert len(paths) > 1
    again = DcicSgp("t")
    load_weights(again, paths[0])
    load_weights(again, tmp_path / "w.safetensors")
    assert read_metadata(paths[0]) == read_metadata(tmp_path / "w.safetensors") == {"step": "3"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.half().float(), again.state_dict()[name]), name


def test_parts_of_different_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condic.models.weights.SHARD_BYTES", 2**16 + 60_000)
    first = save_weights(DcicSgp("t").state_dict(), tmp_path / "w.safetensors", {"step": "3"})
    other = save_weights(DcicSgp("t").state_dict(), tmp_path / "o.safetensors", {"step": "4"})
    first[1].write_bytes(other[1].read_bytes())
    with pytest.raises(InputError, match="of other weights than the first part"):
        load_weights(DcicSgp("t"), tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_numbers_that_float16_does_not_hold_are_not_written(tmp_path: Path, value: float) -> None:
    model = DcicSgp("t")
    with torch.no_grad():
        model.synthesis.head.conv.bias[0] = value
    with pytest.raises(InputError, match=r"not written, since synthesis.*diverged \(a lower --learning-rate"):
        save_weights(model.state_dict(), tmp_path / "w.safetensors", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "holds infinity or NaN"), (-1.0, "range is negative")])
def test_damaged_weights_are_refused(tmp_path: Path, value: float, message: str) -> None:
    state = {name: tensor.half() for name, tensor in DcicSgp("t").state_dict().items()}
    state[next(name for name in state if name.endswith(".peak"))][0] = value
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=f"w.safetensors: .*{message}"):
        load_weights(DcicSgp("t"), tmp_path / "w.safetensors")


def test_a_training_that_diverges_ends_in_one_line(tmp_path: Path, photographs: Path) -> None:
    words = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 5 --learning-rate 100 --out {tmp_path}"
    done = CliRunner().invoke(train, words.split())
    assert isinstance(done.exception, InputError), done.output
    assert "diverged" in str(done.exception)


def test_calibrating_keeps_what_weights_say_of_themselves(tmp_path: Path) -> None:
    Image.effect_noise((256, 256), 40).convert("RGB").save(tmp_path / "photograph.png")
    common = f"--data {tmp_path / 'photograph.png'} --crop 256 --batch 1"
    of_ms_ssim = f"--preset t --loss ms-ssim --steps 1 {common} --out {tmp_path / 'ms'}"
    low = f"--model cic-sr --preset t --stage low-resolution --steps 1 {common} --out {tmp_path / 'low'}"
    blind = f"--preset t --blind analysis --steps 1 {common} --out {tmp_path / 'blind'}"
    for words in (of_ms_ssim, low, blind):
        assert CliRunner().invoke(train, words.split(), catch_exceptions=False).exit_code == 0
    for name, model, options in (
        ("ms", "dcic-sgp", ""),
        ("low", "cic-sr", "--stage low-resolution"),
        ("blind", "dcic-sgp", "--blind analysis"),
    ):
        weights = tmp_path / name / f"{model}-t.safetensors"
        again = f"--steps 0 --init {weights} --out {tmp_path / name / 'again'}"
        words = f"--model {model} --preset t {options} {common} {again}"
        assert CliRunner().invoke(train, words.split(), catch_exceptions=False).exit_code == 0
        assert read_metadata(tmp_path / name / "again" / weights.name) == read_metadata(weights)
    weights = tmp_path / "blind" / "dcic-sgp-t.safetensors"
    words = f"--preset t --steps 0 --init {weights} {common} --out {tmp_path / 'seeing'}"
    with pytest.raises(InputError, match="of --blind analysis; give the same"):
        CliRunner().invoke(train, words.split(), catch_exceptions=False)
    weights = tmp_path / "low" / "cic-sr-t.safetensors"
    words = f"--model cic-sr --preset t --steps 0 --init {weights} {common} --out {tmp_path / 'whole'}"
    with pytest.raises(InputError, match="of --stage low-resolution; give the same"):
        CliRunner().invoke(train, words.split(), catch_exceptions=False)


def test_a_signal_while_a_run_calibrates_ends_nothing_halfway(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate = loop.calibrate

    def interrupted(*words: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        calibrate(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "calibrate", interrupted)
    words = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 2 --out {tmp_path}".split()
    assert CliRunner().invoke(train, words, catch_exceptions=False).exit_code == 0
    model = DcicSgp("t")
    load_weights(model, tmp_path / "dcic-sgp-t.safetensors")
    assert all(bool(r.peak.any()) for r in model.ranges())


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits of POSIX")
@pytest.mark.parametrize("what", ["checkpoint.pt", "dcic-sgp-t.safetensors"])
def test_a_full_disk_is_one_line(tmp_path: Path, photographs: Path, what: str) -> None:
    code = (
        "import resource, sys\nfrom condic.training import loop\n"
        "limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "save = loop.Trainer.save_weights if sys.argv[1] != 'checkpoint.pt' else loop.Trainer.save\n"
        "setattr(loop.Trainer, save.__name__, lambda self: (limit(), save(self)))\n"
        "del sys.argv[1]\nfrom condic.training.cli import main\nmain()"
    )
    words = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 1 --out {tmp_path / 'run'}".split()
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, what, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    assert f"condic-train: {tmp_path / 'run' / what}: File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_of_another_preset_name_the_tensor(tmp_path: Path) -> None:
    save_weights(DcicSgp("t").state_dict(), tmp_path / "t.safetensors", {})
    with pytest.raises(InputError, match=r"prior_gain.*preset|is \["):
        load_weights(DcicSgp("s"), tmp_path / "t.safetensors")


@pytest.mark.parametrize(("lowest", "highest", "said"), [(0.0016, 0.09, False), (0.002, 0.05, True)])
def test_weights_of_a_former_range_of_lambda_start_where_its_levels_lie_today(
    tmp_path: Path, photographs: Path, lowest: float, highest: float, said: bool
) -> None:
    former = DcicSgp("t")
    before = former.main_gain.log_gain.rows()[:, 0].detach()  # a line over the levels
    lambdas = {"lowest_lambda": str(lowest), "highest_lambda": str(highest)} if said else {}
    save_weights(former.state_dict(), tmp_path / "former.safetensors", {"loss": "mse", **lambdas})
    arguments = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 0".split()
    line = [*arguments, "--init", str(tmp_path / "former.safetensors"), "--out", str(tmp_path)]
    assert CliRunner().invoke(train, line, catch_exceptions=False).exit_code == 0
    today = DcicSgp("t")
    load_weights(today, tmp_path / "dcic-sgp-t.safetensors")
    after = today.main_gain.log_gain.rows()[:, 0].detach()
    for level, x in zip((0, 63), LAMBDA_RANGE["mse"], strict=True):
        share = math.log(x / lowest) / math.log(highest / lowest)
        assert float(after[level]) == pytest.approx(float(before[0] + share * (before[63] - before[0])), abs=4e-3)


def test_the_command_trains_evaluates_and_calibrates(tmp_path: Path, photographs: Path) -> None:
    arguments = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 3 --evaluate {photographs}".split()
    result = CliRunner().invoke(train, [*arguments, "--out", str(tmp_path / "o")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "o" / "metrics.jsonl").read_text().splitlines()]
    levels = {p["level"] for p in rows[-1]["points"]}
    assert levels == {0, 16, 32, 48, 63}
    model = DcicSgp("t")
    load_weights(model, tmp_path / "o" / "dcic-sgp-t.safetensors")
    assert all(bool(r.peak.any()) for r in model.ranges())
    assert not torch.equal(model.mixture, DcicSgp("t").mixture)

    weights = tmp_path / "o" / "dcic-sgp-t.safetensors"
    words = f"--preset t --data {photographs} --crop 128 --batch 1 --steps 0 --init {weights}".split()
    result = CliRunner().invoke(train, [*words, "--out", str(tmp_path / "again")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = [read_metadata(path) for path in (weights, tmp_path / "again" / weights.name)]
    assert [(x["step"], x["batch"]) for x in told] == [("3", "2")] * 2, "calibrating is not training"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "give the run a length"),
        (["--steps", "1", "--resume", "a", "--init", "b"], "give one of them"),
        (["--time-budget", "soon"], "write it like 90s"),
        (["--steps", "1", "--crop", "200"], "multiple of 128"),
        (["--steps", "1", "--integers"], "give them with --init"),
        (["--steps", "1", "--learning-rate", "nan"], "'nan' is not a finite number"),
        (["--steps", "1", "--learning-rate", "inf"], "'inf' is not a finite number"),
        (["--steps", "1", "--prior-share", "nan"], "'nan' is not a finite number"),
        (["--steps", "1", "--seed", "99999999999999999999999"], "is not in the range"),
    ],
)
def test_wrong_arguments_get_a_sentence(photographs: Path, extra: list[str], message: str) -> None:
    result = CliRunner().invoke(train, ["--data", str(photographs), *extra])
    assert result.exit_code == 2
    assert message in result.output


def test_integers_train_straight_through_and_stay_integers(tmp_path: Path, photographs: Path) -> None:
    arguments = ["--preset", "t", "--data", str(photographs), "--crop", "128", "--batch", "2"]
    start = [*arguments, "--steps", "20", "--out", str(tmp_path / "start")]
    weights = tmp_path / "start" / "dcic-sgp-t.safetensors"
    tune = [*arguments, "--steps", "30", "--init", str(weights), "--integers", "--out", str(tmp_path / "tuned")]
    for line in (start, tune):
        result = CliRunner().invoke(train, line, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    images = load_photographs([photographs], 128).images[:3]
    before, after = DcicSgp("t").eval(), DcicSgp("t").eval()
    load_weights(before, weights)
    load_weights(after, tmp_path / "tuned" / "dcic-sgp-t.safetensors")
    for model in (before, after):
        model.freeze()
    assert torch.equal(before.synthesis.head.conv.weight, after.synthesis.head.conv.weight)
    rates = [[p.rate for p in evaluate(model, images, _CPU)] for model in (before, after)]
    assert sum(rates[1]) < sum(rates[0])


def test_a_run_of_integers_goes_on_as_if_it_had_not_stopped(tmp_path: Path, photographs: Path) -> None:
    sampler, started = _sampler(photographs), _trainer(tmp_path / "start")
    started.run(sampler, 1, [])
    started.calibrate(sampler)

    def trainer(name: str) -> loop.Trainer:
        model = DcicSgp("t")
        model.load_state_dict(started.ema)
        model.freeze()
        (tmp_path / name).mkdir()
        torch.manual_seed(0)
        settings = replace(started.settings, out=tmp_path / name, integers=True, entropy_fraction=1.0, evaluate_every=2)
        return loop.Trainer(settings, model, _CPU)

    whole = trainer("whole")
    whole.run(sampler, 1, [])
    part = trainer("part")
    part.run(sampler, 1, [_StopAfter(3)], sampler.images[:1])
    checkpoint = load_checkpoint(tmp_path / "part" / "checkpoint.pt", "dcic-sgp", "t")
    assert checkpoint.step == 3
    rest = trainer("rest")
    with torch.no_grad():  # what another start would freeze to
        for parameter in rest.model.parameters():
            parameter.mul_(3)
    rest.model.freeze()
    rest.resume(checkpoint)
    rest.run(sampler, 1, [])
    assert (whole.step, rest.step) == (6, 6)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, rest.model.state_dict()[name]), name


def test_an_evaluation_of_integers_is_of_those_of_the_average(tmp_path: Path, photographs: Path) -> None:
    sampler, trainer = _sampler(photographs), _trainer(tmp_path)
    trainer.calibrate(sampler)
    trainer.model.freeze()
    average = DcicSgp("t")
    average.load_state_dict({name: tensor * 3 for name, tensor in trainer.ema.items()})
    trainer.ema = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    average.freeze()
    assert trainer.evaluate(sampler.images[:1]) == evaluate(average, sampler.images[:1], _CPU)


def test_the_cost_of_freezing_is_reported(tmp_path: Path, photographs: Path) -> None:
    arguments = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 5 --evaluate {photographs}".split()
    result = CliRunner().invoke(train, [*arguments, "--out", str(tmp_path / "o")], catch_exceptions=False)
    assert "integers on the entropy path change the rate by" in result.stderr


@pytest.mark.parametrize(("change", "told"), [(0.004, False), (0.006, True)])
def test_integers_that_cost_more_than_half_a_percent_are_to_be_fine_tuned(
    tmp_path: Path, change: float, told: bool
) -> None:
    console = Console(file=io.StringIO(), width=500)
    _report_freezing(console, [change] * 5, _trainer(tmp_path).settings)
    assert ("--integers --out NEW" in console.file.getvalue()) == told


def test_runs_of_one_seed_have_the_same_weights(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("condic.training.session._PIXELS_TO_START_FROM", 2**15)
    monkeypatch.setattr(loop, "calibrate", lambda *_: None)
    words = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 1 --seed 7 --out".split()
    for name in "ab":
        assert CliRunner().invoke(train, [*words, str(tmp_path / name)], catch_exceptions=False).exit_code == 0
    first, second = (_loaded(tmp_path / name / "dcic-sgp-t.safetensors").state_dict() for name in "ab")
    assert all(map(torch.equal, first.values(), second.values()))


def test_an_ablation_is_not_exported(tmp_path: Path, photographs: Path) -> None:
    arguments = f"--preset t --data {photographs} --crop 128 --batch 2 --steps 2 --blind analysis".split()
    CliRunner().invoke(train, [*arguments, "--out", str(tmp_path / "o")], catch_exceptions=False)
    result = CliRunner().invoke(
        export,
        [
            "--model",
            "dcic-sgp",
            "--preset",
            "t",
            "--weights",
            str(tmp_path / "o" / "dcic-sgp-t.safetensors"),
            "--out",
            "x.condic",
        ],
    )
    assert isinstance(result.exception, InputError)
    assert "blind analysis" in str(result.exception)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    _trainer(tmp_path).save()
    checkpoint = load_checkpoint(path, "dcic-sgp", "t")
    before, files = path.read_bytes(), set(tmp_path.iterdir())

    def full(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(bytes(data)[:100])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"checkpoint\.pt: the disk is full"):
        save_checkpoint(replace(checkpoint, step=9), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert set(tmp_path.iterdir()) == files
