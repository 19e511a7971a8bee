"""condic-bench throughput as a user runs it, on preset t: what fails or is missing is told, and the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condic.benchmarks.results import read_results
from condic.benchmarks.throughput import Measurement, Row, Throughput
from condic.benchmarks.throughput_tables import tables

pytest.importorskip("onnxruntime")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-m", "condic.benchmarks", "throughput"]
BROKEN = """
class Broken:
    name = "broken"
    driver = None
    def __init__(self, options): pass
    def describe(self): return "breaks while it runs"
    def load(self, graph, bundle):
        def run(inputs): raise RuntimeError("out of luck")
        return run

class Crashing(Broken):
    name = "crashing"
    def load(self, graph, bundle):
        import os
        os.abort()
"""


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory, drawing: Callable[..., np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("photograph") / "picture.png"
    Image.fromarray(drawing(120, 150)).save(path)
    return path


@pytest.fixture
def bench(tmp_path: Path, bundle_path: Path, photograph: Path) -> Run:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = ["--models", str(bundle_path), "--images", str(photograph), "--threads", "1", "--repeat", "3"]
        return subprocess.run(
            [*COMMAND, *words, *arguments], cwd=tmp_path, capture_output=True, text=True, env=os.environ | environment
        )

    return run


@pytest.fixture
def broken_backends(tmp_path: Path) -> str:
    """A folder for PYTHONPATH in which backends are registered that fail."""
    folder = tmp_path / "site"
    metadata = folder / "broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "broken.py").write_text(BROKEN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[condic.backends]\nbroken = broken:Broken\ncrashing = broken:Crashing\nabsent = no_such_library:Backend\n"
    )
    return str(folder)


def _rows(path: Path) -> tuple[Row, ...]:
    run: Throughput = read_results(path, {"throughput": Throughput}).content
    return run.rows


def _measured(row: Row) -> Measurement:
    assert row.measured, row.error
    return row.measured


def test_every_number_of_a_run_is_there_and_fits_the_others(bench: Run, tmp_path: Path, bundle_path: Path):
    done = bench("--backends", "ort", "--peers", "jpeg,jpeg:95", "--resolutions", "96x160,200x130", "--json", "t.json",
                 "--html", "t.html")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = _rows(tmp_path / "t.json")
    assert [(row.codec, row.backend, row.resolution.name) for row in rows] == [
        (str(bundle_path), "ort", "96x160"), ("jpeg", None, "96x160"), ("jpeg:95", None, "96x160"),
        (str(bundle_path), "ort", "200x130"), ("jpeg", None, "200x130"), ("jpeg:95", None, "200x130"),
    ]  # fmt: skip
    for row in rows:
        measured = _measured(row)
        for direction in (measured.encode, measured.decode):
            seconds = direction.seconds
            assert 0 < seconds.low <= seconds.median <= seconds.high
            assert seconds.runs == 3
        assert measured.load > 0
        assert 100 < measured.bytes < 3 * row.resolution.width * row.resolution.height
        if memory := measured.memory:
            assert 10**7 < memory.before <= memory.loaded
            assert min(memory.encode, memory.decode) > 10**7
    model, peer, larger = (_measured(row) for row in rows[:3])
    assert (peer.level, larger.level) == (55, 95)
    assert larger.bytes > peer.bytes
    assert {"analysis", "context_0", "entropy_step", "coder", "pixels", "copies", "rest"} <= model.encode.stages.keys()
    assert {"synthesis", "context_0", "entropy_step", "coder", "pixels"} <= model.decode.stages.keys()
    assert "ONNX Runtime" in model.settings
    assert model.level == 32
    for words in ("MP/s", "quartiles", "picture.png", "outside graphs"):
        assert words in done.stdout
    assert (tmp_path / "t.html").read_text().count("<svg") == 3


def test_memory_of_a_gpu_and_time_to_build_engines_have_columns_where_there_are_any(bench: Run, tmp_path: Path):
    bench("--backends", "ort", "--peers", "jpeg", "--resolutions", "96x160", "--json", "t.json")
    run: Throughput = read_results(tmp_path / "t.json", {"throughput": Throughput}).content
    usual = next(table for table in tables(run) if table.kind == "memory")
    on_gpu = replace(_measured(run.rows[0]), device_memory=250_000_000, build_seconds=12.0)
    rows = [replace(run.rows[0], measured=on_gpu), *run.rows[1:]]
    table = next(table for table in tables(replace(run, rows=rows)) if table.kind == "memory")
    assert table.columns == (*usual.columns, "GPU MB", "engines built s")
    assert table.rows == ((*usual.rows[0], "250", "12"), (*usual.rows[1], "-", "-"))


def test_a_batch_is_coded_at_the_same_time(bench: Run, tmp_path: Path):
    done = bench("--backends", "ort", "--peers", "none", "--resolutions", "96x96", "--batch", "3", "--json", "t.json")
    assert done.returncode == 0, done.stderr
    (row,) = _rows(tmp_path / "t.json")
    measured = _measured(row)
    assert sum(measured.encode.stages.values()) == pytest.approx(measured.encode.seconds.median, rel=0.6)
    assert "batch of 3" in done.stdout


def test_what_fails_is_a_row_and_the_run_goes_on(bench: Run, tmp_path: Path, broken_backends: str):
    done = bench("--backends", "broken,crashing,ort", "--peers", "none", "--resolutions", "64x64", "--json", "t.json",
                 PYTHONPATH=broken_backends)  # fmt: skip
    assert done.returncode == 1
    broken, crashing, ort = _rows(tmp_path / "t.json")
    assert "out of luck" in (broken.error or "")
    assert "ended with code" in (crashing.error or "")
    assert ort.measured
    assert "failed:" in done.stdout


def test_what_is_missing_is_listed_and_fails_only_if_it_was_asked_for(bench: Run, broken_backends: str, tmp_path: Path):
    asked = bench("--backends", "ort,absent", "--peers", "none", "--resolutions", "64x64", PYTHONPATH=broken_backends)
    assert asked.returncode == 1
    assert "missing: absent: backend absent is not installed" in asked.stdout
    by_default = bench("--backends", "ort", "--compressai", sys.executable, "--resolutions", "64x64", "--repeat", "1",
                       "--json", "t.json")  # fmt: skip
    assert by_default.returncode == 0, by_default.stdout
    run: Throughput = read_results(tmp_path / "t.json", {"throughput": Throughput}).content
    assert {row.codec for row in run.rows} | run.missing.keys() >= {"jpeg", "webp", "avif", "jxl", "mbt2018-mean"}


def test_another_python_without_condic_is_said_to_lack_it(bench: Run, tmp_path: Path):
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\nshift 2\nexec {sys.executable} -S -m condic.benchmarks.worker\n")
    bare.chmod(0o755)
    done = bench("--backends", "ort", "--peers", "mbt2018-mean", "--compressai", str(bare), "--resolutions", "64x64")
    assert done.returncode == 1
    assert "install condic there" in done.stdout


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, bundle_path: Path, photograph: Path):
    words = ["--models", str(bundle_path), "--images", str(photograph), "--backends", "ort", "--peers", "none",
             "--resolutions", "64x64,1000x1000", "--repeat", "100000", "--time-limit", "3",
             "--json", "t.json"]  # fmt: skip
    with subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as program:
        deadline = time.monotonic() + 120
        while not (tmp_path / "t.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        output = program.communicate(timeout=60)[0]
    assert program.returncode == 130
    (row,) = json.loads((tmp_path / "t.json").read_text())["results"]["rows"]
    assert row["resolution"]["name"] == "64x64"
    assert "64x64" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backends", "cuda"), "unknown backend 'cuda'; known: auto, ort, openvino, torch, ort-cuda, tensorrt"),
        (("--backends", "auto,ort"), "--backends auto,ort: auto stands alone; give it, or names"),
        (("--models", "dcic:x"), "not a shipped one (cic-sr-s, cic-sr-s-ms-ssim, dcic-sgp-s, dcic-sgp-s-ms-ssim)"),
        (("--peers", "gif"), "unknown peer 'gif'; known: jpeg, webp, avif, jxl"),
        (("--resolutions", "8k"), "unknown resolution '8k'; known: 720p, 1080p, 4k"),
        (("--images", "nowhere"), "nowhere: no such file or folder"),
        (("--models", "none", "--peers", "none"), "nothing to measure"),
        (("--compressai", "no-python"), "no-python: no such program"),
    ],
)
def test_bad_input_is_one_line_that_lists_what_is_valid(bench: Run, arguments: tuple[str, ...], message: str):
    done = bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_results_are_not_mixed_with_the_tables(bench: Run):
    done = bench("--json", "-")
    assert done.returncode == 2
    assert "standard output has the tables; give a file name" in done.stderr
