"""condic-export --engines and condic-export inspect, from words to tables; what goes wrong is one line."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("rich")

from condic.engines import session
from condic.engines.gpu import Gpu
from condic.errors import BackendError
from condic.export.cli import main
from condic.runtime.engine_cache import PROFILES, Engine, EngineKey, Target, write_engine

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`run(*words)`: exit code, standard output and error of condic-export on a machine without a GPU."""
    monkeypatch.setenv("CONDIC_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(session, "first_gpu", lambda: None)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["condic-export", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """`refused(*words)`: the one line that condic-export says about bad input."""

    def refused(*words: object) -> str:
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1, err
        assert err.startswith("condic-export: ")
        assert not (tmp_path / "engines").exists()
        return err

    return refused


@pytest.mark.slow
def test_engines_are_built_from_a_bundle_shown_kept_and_inspected(run: Run, bundle_path: Path, tmp_path: Path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (extra tensorrt)")
    code, out, err = run("--model", bundle_path, "--engines", "--profile", "512")
    assert (code, out) == (0, "")
    assert err.count(" built ") == 13
    assert "0 of 1" in err
    assert "whether TensorRT joins them" in err
    assert "13 engines in" in err
    code, out, err = run("--model", bundle_path, "--engines", tmp_path / "engines", "--profile", "512")
    assert (code, err.count(" kept ")) == (0, 13)
    (path,) = (tmp_path / "engines").glob("*/synthesis-fp32-*.engine")
    code, out, err = run("inspect", path)
    assert (code, err) == (0, "")
    assert "512 (smallest 128x128, usual 512x768, largest 768x768)" in out
    assert "on GPUs of compute capability 8.0, 8.6, 8.9, and 12.0 and later" in " ".join(out.split())
    assert "convolution" in out
    assert "attention 0: unknown" in out
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = run("--model", bundle_path, "--engines", "--profile", "512")
    assert (code, err.count(" kept "), err.count("│ built ")) == (0, 12, 1)
    assert "synthesis 512: built again" in err
    assert "damaged" in err


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    key = EngineKey("ab" * 32, "synthesis", "fp16", Target("Orin", "8.7", "tensorrt", "10.3.0"), PROFILES["4k"])
    opaque = {"name": "{ForeignNode[/conv1/Conv...[/a]]}", "kind": "Myelin", "precision": "fp16", "origin": ""}
    layers = [opaque, {"name": "_gemm_mha_v2", "kind": "kgen", "precision": "fp16", "origin": "attention_0.softmax"}]
    attention = [{"fused": "not fused", "reason": "3 layers"}, {"fused": "fused", "reason": "the kernel _gemm_mha_v2"}]
    notes = {"source": "engine", "layers": layers, "attention": attention, "graph": "", "build_seconds": 12.34}
    return write_engine(tmp_path, Engine(key, b"a plan", notes))


def test_inspect_needs_neither_tensorrt_nor_a_gpu(run: Run, engine: Path):
    code, out, _ = run("inspect", engine)
    assert code == 0
    for text in ("{ForeignNode[/conv1/Conv...[/a]]}", "synthesis", "fp16", "TensorRT 10.3.0 on Orin (8.7)",
                 "layers of the engine", "_gemm_mha_v2", "kgen", "built in 12.3 s"):  # fmt: skip
        assert text in out
    assert "attention 0: not fused; 3 layers" in out
    assert "attention 1: fused; the kernel _gemm_mha_v2" in out


def test_inspect_refuses_what_is_no_engine(refused: Callable[..., str], engine: Path, tmp_path: Path):
    assert "No such file" in refused("inspect", tmp_path / "none.engine")
    (tmp_path / "text").write_text("a plan")
    assert "not an engine that condic-export wrote" in refused("inspect", tmp_path / "text")
    engine.write_bytes(engine.read_bytes()[:-1])
    assert "damaged" in refused("inspect", engine)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "720p"], "--profile 720p: there is no '720p'; there are 512, 1080p, 4k"),
        (["--shapes", "128x128,64x64,512x512"], "out of order"),
        (["--shapes", "128x128,512x512"], "needs smallest, usual and largest size"),
        (["--shapes", "128x128,256x256,512x512", "--profile", "4k"], "--profile and --shapes exclude each other"),
    ],
)
def test_bad_profiles_are_one_line(refused: Callable[..., str], bundle_path: Path, words: list[str], message: str):
    assert message in refused("--model", bundle_path, "--engines", *words)


def test_bad_models_and_options_are_one_line(
    refused: Callable[..., str], bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(session, "find_tensorrt", lambda: pytest.fail("looked for TensorRT"))
    assert "Missing option '--model'" in refused("--engines", "--profile", "5k")
    assert "'--out' (or '--engines')" in refused("--model", "dcic-sgp")
    assert "--model jpeg: no such codec" in refused("--model", "jpeg", "--out", tmp_path / "x")
    for words in (["--profile", "512"], ["--require-fused"], ["--strip-weights"], ["--optimization-level", "2"]):
        assert "is for engines; give --engines" in refused("--model", "dcic-sgp", "--out", tmp_path / "x", *words)


def test_what_is_of_exporting_is_refused_for_a_bundle(
    refused: Callable[..., str], bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("condic.export.cli._engine_session", lambda *_: object())
    for words in (["--fp16"], ["--preset", "t"], ["--out", tmp_path / "x"]):
        message = refused("--model", bundle_path, "--engines", *words)
        assert f"{words[0]} is of exporting, and {bundle_path} is exported already" in message
    assert "no such bundle" in refused("--model", tmp_path / "none.condic", "--engines")


def test_missing_libraries_gpus_and_folders_are_one_line(
    refused: Callable[..., str], bundle_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable, tmp_path: Path
):
    line = (Path(__file__).parents[1] / "data" / "tensorrt_apis.jsonl").read_text().splitlines()[1]
    full = play(json.loads(line))

    def missing() -> None:
        raise BackendError("TensorRT is not installed; pip install 'condic[tensorrt]'")

    monkeypatch.setattr(session, "find_tensorrt", missing)
    assert "TensorRT is not installed" in refused("--model", bundle_path, "--engines")
    monkeypatch.setattr(session, "find_tensorrt", lambda: full)
    assert "there is none here" in refused("--model", bundle_path, "--engines")
    monkeypatch.setattr(session, "first_gpu", lambda: Gpu("Orin", "8.7"))
    monkeypatch.delenv("CONDIC_ENGINES")
    monkeypatch.setenv("CONDIC_CACHE", "")
    assert "set CONDIC_ENGINES" in refused("--model", bundle_path, "--engines")
    (tmp_path / "file").write_text("in the way")
    assert "file: cannot be made a folder" in refused("--model", bundle_path, "--engines", tmp_path / "file")


def test_ctrl_c_asks_tensorrt_to_stop_and_ends_the_program(
    run: Run, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable
):
    line = (Path(__file__).parents[1] / "data" / "tensorrt_apis.jsonl").read_text().splitlines()[-1]
    monkeypatch.setattr(session, "find_tensorrt", lambda: play(json.loads(line)))
    asked: list[bool] = []

    def building(bundle: Any, order: Any, trt: Any, gpu: Any, report: Any, progress: Any) -> None:
        step = progress(bundle.manifest.graphs[0], order.profiles[0])
        asked.append(step("Building engine", 0.5))
        signal.raise_signal(signal.SIGINT)
        asked.append(step("Building engine", 0.6))
        raise BackendError("cannot build the engine: cancelled")

    monkeypatch.setattr(session, "build_engines", building)
    code, _, err = run("--model", bundle_path, "--engines")
    assert (code, asked) == (130, [True, False])
    assert err.strip().splitlines()[-1] == "condic-export: interrupted; nothing was left half-written"


@pytest.mark.parametrize(("capability", "said"), [("9.0", True), ("8.7", True), ("8.9", False), ("7.5", False)])
def test_engines_that_will_not_run_here_are_said_to_be_for_others(
    run: Run, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable, capability: str, said: bool
):
    """On a Turing GPU TensorRT-RTX builds for that alone."""
    line = (Path(__file__).parents[1] / "data" / "tensorrt_apis.jsonl").read_text().splitlines()[-1]
    monkeypatch.setattr(session, "find_tensorrt", lambda: play(json.loads(line)))
    monkeypatch.setattr(session, "first_gpu", lambda: Gpu("some GPU", capability))

    def building(*_: object) -> None:
        raise BackendError("that will do")

    monkeypatch.setattr(session, "build_engines", building)
    code, _, err = run("--model", bundle_path, "--engines")
    assert code == 2
    assert ("does not run on this some GPU" in err) == said
