"""The script: without a GPU it says so; its stages, on a fake device, all pass and say what they found."""

from __future__ import annotations

import json
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
import run
from cuda_emulator import DeviceMemory, Emulator
from fake_backend import FakeBackend, registered
from fake_driver import FakeDriver

SCRIPT = Path(run.__file__)


def test_without_a_gpu_it_says_so_and_ends_with_code_2() -> None:
    if find_library("cuda"):
        pytest.skip("an NVIDIA driver is installed")
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no NVIDIA driver here" in done.stderr


@pytest.mark.parametrize("stages", ["tensorrt", "ort-cuda", "kernels"])
def test_a_process_without_a_gpu_reports_what_fails_and_goes_on(stages: str, bundle_path: Path) -> None:
    if find_library("cuda"):
        pytest.skip("an NVIDIA driver is installed")
    outcomes = run._process(sys.executable, stages, str(bundle_path), "512")
    assert not outcomes[-1]["ok"]
    assert outcomes[-1]["error"]


def test_a_process_that_crashes_is_an_outcome(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho dying >&2\nkill -SEGV $$\n")
    python.chmod(0o755)
    (outcome,) = run._process(str(python), "tensorrt", "", "")
    assert outcome["error"] == "the process ended with code -11: dying"


def test_every_stage_passes_on_a_device_that_works(
    emulator: Emulator, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch, bundle_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    registered(FakeBackend(FakeDriver(emulator, memory)), monkeypatch)
    monkeypatch.setattr(run, "SIZES", {"512": "96x64"})
    monkeypatch.setattr(run, "SMALL_SIZES", ("70x40",))
    monkeypatch.setattr(run.checks(), "LEVELS", (32,))
    measure = run.checks().measure_images
    monkeypatch.setattr(run.checks(), "measure_images", lambda codec, image: measure(codec, image, runs=2))
    outcomes = []

    def stage(name: str, code: object) -> object:
        outcomes.append(run._outcome("fake", name, None, code(), 0))  # type: ignore[operator]
        return outcomes[-1]["facts"]

    run._backend_stages(stage, "fake", str(bundle_path), ["512"])  # type: ignore[arg-type]
    assert [x["stage"] for x in outcomes] == [
        "open", "known answers", "graphs", "cross decoding", "repetition", "images 512"
    ]  # fmt: skip
    failed = run._outcome("fake", "last", "out of luck", {}, 0)
    results = run.Results(tmp_path, "A GPU (80GB)")
    for added, count in ((outcomes, 6), ([failed], 7)):  # a run that is cut short leaves what it had
        results.add(added)
        (path,) = tmp_path.glob("gpu-a-gpu-80gb--*.json")
        facts = json.loads(path.read_text())
        assert facts["kind"] == "gpu"
        assert facts["machine"]["python"]
        assert len(facts["results"]) == count
    assert results.summary() == 1


def test_a_process_without_end_is_an_outcome_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATIENCE", 2)
    code, said, complaint = run._ended(
        [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"]
    )
    assert (code, said, complaint) == (1, "begun\n", "not done after 2 s")
