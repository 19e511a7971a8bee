from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from condic.errors import InputError
from condic.training.cli import train


def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    words = ["condic-train", "--steps", "1", "--data", str(tmp_path)]
    hidden = f"import sys; sys.modules['torch'] = None; sys.argv = {words}; "
    program = hidden + "from condic.training.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "condic-train: this needs torch: pip install '.[train]' in condic's sources\n",
    )


@pytest.mark.parametrize(("option", "value", "problem"), [
    ("--device", "cuda:9", "finds no such CUDA device here; use --device cpu"),
    ("--device", "cuda:999", "finds no such CUDA device here; use --device cpu"),
    ("--device", "meta", "nothing trains there; use cpu or cuda"),
    ("--device", "cpu:7", "nothing trains there; use cpu or cuda"),
    ("--resume", "missing.pt", "missing.pt: no such file"),
    ("--device", "abacus", "not a device that PyTorch knows"),
    ("--out", "taken", "taken: File exists; give a folder"),
])  # fmt: skip
def test_devices_and_folders_that_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, problem: str
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    done = CliRunner().invoke(train, ["--data", ".", "--steps", "1", option, value])
    assert isinstance(done.exception, InputError)
    assert problem in str(done.exception)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--steps 1 --model cic-sr --prior-share 0.4", "--prior-share is not for --model cic-sr"),
        ("--steps 1 --model cic-sr --blind analysis", "--blind analysis is not for --model cic-sr"),
        ("--steps 1 --prior-share 1.5", "1.5 is not in the range"),
        ("--steps 1 --stage joint --model cic-sr --integers --init w", "cic-sr has no integer form"),
        ("--steps 1 --stage conditional", "--stage belongs to --model cic-sr"),
        ("--steps 1 --crop 200", "must be a multiple of 128"),
        ("--time-budget 10", "is not a time"),
        ("--time-budget 0s", "a run needs some time"),
        ("--steps 1 --loss ms-ssim --crop 128", "MS-SSIM needs more than 160 pixels"),
        ("--steps 1 --seed -1", "-1 is not in the range"),
        ("", "give the run a length"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: str, problem: str) -> None:
    done = CliRunner().invoke(train, ["--data", "photographs", *options.split()])
    assert done.exit_code == 2
    assert problem in done.output
