"""The script: without a GPU it says so; its stages, on a fake device, all pass and say what they found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import run
from cuda_emulator import DeviceMemory, Emulator
from fake_backend import FakeBackend, registered
from fake_driver import FakeDriver

from condic.runtime.bundle import read_bundle

SCRIPT = Path(run.__file__)


class Stages:
    """Notes what each stage found; an error is the test's."""

    def __init__(self) -> None:
        self.outcomes: list[run.Facts] = []

    def __call__(self, name: str, code: object) -> object:
        self.outcomes.append(run._outcome("fake", name, None, code(), 0))  # type: ignore[operator]
        return self.outcomes[-1]["facts"]

    def names(self) -> list[str]:
        return [x["stage"] for x in self.outcomes]


@pytest.fixture
def fake(emulator: Emulator, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    pytest.importorskip("onnxruntime")
    driver = FakeDriver(emulator, memory)
    registered(FakeBackend(driver), monkeypatch)
    monkeypatch.setattr("condic.runtime.cuda.driver.open_driver", lambda: driver)
    monkeypatch.setattr(run, "SIZES", {"512": "96x64"})
    monkeypatch.setattr(run, "SMALL_SIZES", ("70x40",))
    return driver


def test_without_a_gpu_it_says_so_and_ends_with_code_2() -> None:
    if find_library("cuda"):
        pytest.skip("an NVIDIA driver is installed")
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no NVIDIA driver here" in done.stderr


@pytest.mark.parametrize("stages", ["tensorrt", "ort-cuda", "kernels", "training checks"])
def test_a_process_without_a_gpu_reports_what_fails_and_goes_on(stages: str, bundle_path: Path) -> None:
    if find_library("cuda"):
        pytest.skip("an NVIDIA driver is installed")
    command = [sys.executable, str(SCRIPT), "--stages", stages, "--bundle", str(bundle_path), "--sizes", "512"]
    outcomes = list(run._process(stages, command, 100))
    assert not outcomes[-1]["ok"]
    assert outcomes[-1]["error"]


def test_a_graph_that_fails_keeps_its_builder_from_no_other(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT-RTX, which builds without a GPU")
    monkeypatch.setenv("CONDIC_ENGINES", str(tmp_path))
    stages = "engines transform analysis"
    command = [sys.executable, str(SCRIPT), "--bundle", str(bundle_path), "--profiles", "512", "--stages", stages]
    _, failed, built = run._process(stages, command, 100)
    assert (failed["stage"], failed["error"]) == ("engine transform", "ValueError: the model has no graph transform")
    assert built["stage"] == "engine analysis"
    assert [engine["done"] for engine in built["facts"]["engines"]] == ["built"]
    assert len(list(tmp_path.rglob("analysis-*.engine"))) == 1


def test_a_process_that_crashes_or_is_none_is_an_outcome() -> None:
    (outcome,) = run._process("tensorrt", ["sh", "-c", "echo dying >&2; kill -SEGV $$"], 100)
    assert outcome["error"] == "the process ended with code -11: dying"
    (outcome,) = run._process("tensorrt", ["/no/such/python"], 100)
    assert "No such file" in outcome["error"]


def test_outcomes_come_while_a_process_runs_and_stay_when_it_takes_too_long() -> None:
    line = json.dumps(run._outcome("b", "first", None, {}, 0))
    begun = time.monotonic()
    outcomes = run._process("b", ["sh", "-c", f"echo '{line}'; sleep 60; true"], 3)
    assert next(outcomes)["stage"] == "first"
    (late,) = outcomes
    assert (late["error"], late["ok"]) == ("not done after 3 s", False)
    assert time.monotonic() - begun < 30


def test_who_gives_up_reading_ends_the_process() -> None:
    process = run.Run(["sh", "-c", "echo begun; sleep 60; true"], 100, wait=False)
    for _ in process.lines():
        break
    assert process._process is not None
    assert process._process.wait(10) == -9
    waiting = run.Run(["sleep", "60"], 100, wait=False)
    run.Run.end_all()
    assert waiting._process is not None
    assert waiting._process.wait(10) == -9
    list(waiting.lines())
    assert not run.Run._going


def test_outcomes_of_several_builders_come_as_they_are(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(stages: str, command: object, limit: float) -> Iterator[run.Facts]:
        for role in stages.split()[1:]:
            time.sleep(0.01 if "synthesis" in role else 0.5)
            yield run._outcome("tensorrt", f"engine {role}", None, {}, 0)

    monkeypatch.setattr(run, "_process", process)
    begun = time.monotonic()
    outcomes = run._engines([], str(bundle_path), 2, 100)
    assert next(outcomes)["ok"]
    assert time.monotonic() - begun < 0.5, "not when a builder is done with all of its own"
    assert len(list(outcomes)) == len(read_bundle(bundle_path).manifest.graphs) - 1


@pytest.mark.parametrize(
    ("said", "code", "error"),
    [
        (["========= ERROR SUMMARY: 2 errors"], 9, "ERROR SUMMARY: 2 errors"),
        (['{"backend": "kernels", "stage": "open", "ok": false, "error": "no pycuda"}', "ERROR SUMMARY: 0 errors"], 1,
         "open: no pycuda"),
        (["========= RACECHECK SUMMARY: 0 hazards displayed"], 0, None),
    ],
)  # fmt: skip
def test_a_sanitizer_says_what_it_found_or_why_it_could_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str], code: int, error: str | None
) -> None:
    sanitizer = tmp_path / "compute-sanitizer"
    lines = "\n".join(said)
    sanitizer.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\nexit {code}\n")
    sanitizer.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    outcomes = list(run._sanitized(sys.executable, 60))
    assert [outcome["error"] for outcome in outcomes] == [error] * 4
    assert all("SUMMARY" in outcome["facts"]["summary"] for outcome in outcomes)


@pytest.mark.parametrize(
    "words", [["--sizes", "720p"], ["--builders", "0"], ["--bundle", "none.condic"], ["--only", "all"]]
)
def test_arguments_are_checked_before_anything_takes_time(words: list[str]) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"argument {words[0]}: " in done.stderr


def test_every_stage_of_a_backend_passes_on_a_device_that_works(
    fake: FakeDriver, monkeypatch: pytest.MonkeyPatch, bundle_path: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(run.checks(), "LEVELS", (32,))
    for name in ("measure_single", "measure_many"):
        original = getattr(run.checks(), name)
        monkeypatch.setattr(run.checks(), name, partial(original, runs=2))
    stages = Stages()
    run._backend_stages(stages, "fake", str(bundle_path), ["512"])  # type: ignore[arg-type]
    assert stages.names() == [
        "open", "known answers", "graphs", "cross decoding", "repetition", "cross decoding 512", "images 512",
        "many images 512", "profile 512",
    ]  # fmt: skip
    for outcome in stages.outcomes[-3:-1]:
        assert outcome["facts"]["programs"] == outcome["facts"]["captured"] > 0
    assert stages.outcomes[-1]["facts"]["encode_us"]["encode_chunk"] > 0
    failed = run._outcome("fake", "last", "out of luck", {}, 0)
    results = run.Results(tmp_path, "A GPU (80GB)")
    for added, count in ((stages.outcomes, 9), ([failed], 10)):  # a run that is cut short leaves what it had
        assert results.add("python", added) == (added is stages.outcomes)
        (path,) = tmp_path.glob("gpu-a-gpu-80gb--*.json")
        facts = json.loads(path.read_text())
        assert facts["kind"] == "gpu"
        assert facts["machine"]["python"]
        assert len(facts["results"]) == count
    assert results.summary() == 1


def test_every_stage_of_the_kernels_passes(
    fake: FakeDriver, monkeypatch: pytest.MonkeyPatch, bundle_path: Path
) -> None:
    import kernel_checks

    check = kernel_checks.check_kernels
    monkeypatch.setattr(kernel_checks, "check_kernels", lambda driver, bundle, sides: check(driver, bundle, (4,)))
    for name in ("measure_kernels", "measure_coder"):
        original = getattr(kernel_checks, name)
        monkeypatch.setattr(kernel_checks, name, lambda *given, original=original: original(*given, runs=2))
    stages = Stages()
    run._kernel_stages(stages, str(bundle_path), ["512"])  # type: ignore[arg-type]
    assert stages.names() == ["open", "kernels", "kernels 512", "coder 512"]
    assert set(stages.outcomes[-1]["facts"]) == {
        f"{name}, level {k}" for name in ("prior", "hyper", "main") for k in (0, 32, 63)
    }


@pytest.mark.parametrize(
    ("way", "captures", "compiles"), [("checks", 2, 0), ("plain", 0, 0), ("captured", 2, 0), ("compiled", 2, 2)]
)
def test_every_stage_of_training_passes_where_steps_can_be_captured(
    monkeypatch: pytest.MonkeyPatch, way: str, captures: int, compiles: int
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    import training_checks

    captured = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        captured.append(work)
        return work

    check, measure = training_checks.check_capture, training_checks.measure_crops
    monkeypatch.setattr(training_checks, "check_capture", lambda build, device: check(build, capture, device=device))
    monkeypatch.setattr(
        training_checks,
        "measure_crops",
        lambda build, **options: measure(build, **{"capture": capture, **options, "steps": 2}),
    )
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiled.append(dynamic) or model)
    stages = Stages()
    run._training_stages(stages, way, "t", 1, "cpu")  # type: ignore[arg-type]
    assert stages.names() == ["open", "dcic-sgp", "cic-sr"]
    assert (len(captured), compiled) == (captures, [False] * compiles)
    facts = [x["facts"] for x in stages.outcomes[1:]]
    assert all(x["weights"]["apart"] == 0 if way == "checks" else x["crops_per_second"] > 0 for x in facts)


def test_parts_that_there_are_not_are_named() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", "kernels,engine"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "no such part: engine; there are kernels, tensorrt, ort-cuda, training, sanitizers" in done.stderr


def test_a_mosaic_has_the_photograph_and_its_reflections() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    large = run.checks().mosaic(image, 8, 5)
    assert large.shape == (8, 5, 3)
    assert np.array_equal(large[:3, :4], image)
    assert np.array_equal(large[3:6, :4], image[::-1])
    assert np.array_equal(run.checks().mosaic(image, 2, 3), image[:2, :3])


def test_half_a_line_is_no_outcome_and_an_error_of_the_script_is_one(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = ["sh", "-c", """printf '{"backend": "tensorrt", "stage": "engine sy'; kill -9 $$"""]
    (outcome,) = run._process("engines", killed, 60)
    assert (outcome["ok"], outcome["error"].partition(":")[0]) == (False, "the process ended with code -9")

    def broken(*_: object) -> None:
        raise RuntimeError("of the script itself")

    monkeypatch.setattr(run, "_process", broken)
    outcomes = list(run._engines(["false"], str(bundle_path), 2, 60))
    assert [x["error"] for x in outcomes] == ["RuntimeError: of the script itself"] * 2
