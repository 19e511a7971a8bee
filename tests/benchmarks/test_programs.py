"""condic-bench and the demo, run as a user runs them, on preset t."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from condic.benchmarks.commands.matrix import matrix
from condic.benchmarks.commands.rd import rd
from condic.benchmarks.condic_codec import CondicCodec
from condic.benchmarks.matrix import Cell, Matrix
from condic.errors import BackendError, InputError
from condic.runtime.bundle import Bundle, write_bundle
from condic.runtime.codec import Codec, load_codec

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, drawing: Callable[..., np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(drawing(170, 200)).save(folder / "a.png")
    Image.fromarray(drawing(161, 161)).save(folder / "b.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Run:
    def run(*arguments: str | Path, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", f"condic.{module}", *map(str, arguments)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_rd_measures_real_files_and_writes_a_report(bench: Run, folder: Path, bundle_path: Path, tmp_path: Path):
    done = bench("rd", folder, "--model", bundle_path, "--levels", "0,63", "--against", "jpeg",
                 "--json", "rd.json", "--html", "rd.html")  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "rd.json").read_text())["results"]
    rows = [r for r in facts["images"] if r["codec"] == "condic dcic-sgp-t"]
    assert [(r["file"], r["level"]) for r in rows] == [("a.png", 0), ("a.png", 63), ("b.png", 0), ("b.png", 63)]
    assert rows[0]["bpp"] == rows[0]["bytes"] * 8 / (170 * 200)
    assert facts["means"]["jpeg"][-1]["psnr"] > facts["means"]["jpeg"][0]["psnr"]
    page = (tmp_path / "rd.html").read_text()
    assert page.count("<svg") == 2
    assert "b.png" in page
    assert "not Kodak's" in done.stdout
    assert "nowhere.json" in bench("report", "rd.json", "nowhere.json", "--html", "all.html").stderr


def test_an_image_too_small_to_measure_is_named_before_any_is_coded(
    folder: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("condic.benchmarks.rate_distortion.measure", lambda *_: pytest.fail("an image was coded"))
    Image.new("RGB", (200, 160)).save(tmp_path / "small.png")
    done = CliRunner().invoke(rd, [str(folder / "a.png"), str(tmp_path / "small.png"), "--model", str(bundle_path)])
    assert isinstance(done.exception, InputError)
    assert "small.png: MS-SSIM needs" in str(done.exception)


def test_size_finds_files_little_larger_than_their_information(
    bench: Run, folder: Path, bundle_path: Path, tmp_path: Path, codec: Codec
):
    done = bench("size", folder, "--model", bundle_path, "--levels", "0,63", "--json", "size.json")
    assert done.returncode == 0, done.stderr
    for row in json.loads((tmp_path / "size.json").read_text())["results"]:
        information = sum(latent["information"] for latent in row["latents"])
        assert information < row["bytes"] < 1.005 * information + 160
        assert f" {100 * (row['bytes'] / information - 1):.2f} %" in done.stdout
        both = [len(codec.encode(folder / name, row["level"])) for name in ("a.png", "b.png")]
        assert row["bytes"] == pytest.approx(mean(both), rel=0.02)


def test_coder_times_the_largest_latent(bench: Run, folder: Path, bundle_path: Path, tmp_path: Path):
    done = bench("coder", folder, "--model", bundle_path, "--levels", "9,32", "--repeats", "2", "--json", "coder.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "coder.json").read_text())["results"]
    assert [(row["file"], row["level"]) for row in rows] == [(f"{x}.png", level) for x in "ab" for level in (9, 32)]
    assert all(row["latent"] == "main" and sum(row["scales"]) == row["symbols"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rd", "nowhere"), "nowhere: no such file or folder"),
        (("rd", ".", "--levels", "0,64"), "levels are 0..63"),
        (("size", "."), "no image in"),
        (("pairs", "."), "pictures are for a report: give --json FILE"),
        (("rd", ".", "--html", "no/such/folder.html"), "no such folder"),
        (("rd", "a.png", "--json", "a.png"), "a.png: unknown suffix '.png'; use .json"),
        (("report", "a.json", "--html", "a.json"), "a.json: unknown suffix '.json'; use .html"),
        (("rd", "n" * 300), "no such file or folder"),
    ],
)
def test_bad_input_is_one_line(bench: Run, arguments: tuple[str, ...], message: str):
    done = bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_pairs_are_of_the_level_asked_for(bench: Run, folder: Path, bundle_path: Path, tmp_path: Path, codec: Codec):
    done = bench("pairs", folder / "a.png", "--model", bundle_path, "--quality", "9", "--json", "pairs.json")
    assert done.returncode == 0, done.stderr
    (pair,) = json.loads((tmp_path / "pairs.json").read_text())["results"]["pairs"]
    own = next(picture for picture in pair["pictures"] if picture["codec"].startswith("condic"))
    assert (own["level"], own["bytes"]) == (9, pytest.approx(len(codec.encode(folder / "a.png", 9)), rel=0.02))


def test_a_matrix_ends_with_code_1_where_latents_differ_and_2_without_a_backend_that_was_named(
    folder: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = [str(folder / "a.png"), "--model", str(bundle_path), "--backends"]
    assert CliRunner().invoke(matrix, [*words, "ort"]).exit_code == 0
    assert isinstance(CliRunner().invoke(matrix, [*words, "ort,none"]).exception, BackendError)
    run = Matrix("dcic-sgp-t", 32, ("a.png",), {}, (Cell("ort", "ort", "", 0, 1, None),))
    monkeypatch.setattr("condic.benchmarks.matrix.measure_matrix", lambda *_: run)
    assert CliRunner().invoke(matrix, [*words, "ort"]).exit_code == 1


def test_an_unknown_peer_is_named_with_those_that_are_known(bench: Run, folder: Path, bundle_path: Path):
    done = bench("rd", folder, "--model", bundle_path, "--against", "gif")
    assert done.returncode == 2
    assert "jpeg, webp, avif, jxl" in done.stderr


def test_the_demo_writes_its_pictures_and_says_how_good_they_are(
    bench: Run, folder: Path, bundle_path: Path, tmp_path: Path
):
    done = bench(folder / "a.png", "--model", bundle_path, "--out", "out", module="benchmarks.demo")
    assert done.returncode == 0, done.stderr
    with (
        Image.open(tmp_path / "out" / "a.png") as decoded,
        Image.open(tmp_path / "out" / "a-side-by-side.png") as sheet,
    ):
        assert decoded.size == (200, 170)
        assert sheet.width > 3 * 200
    assert f"{(tmp_path / 'out' / 'a.cdic').stat().st_size:,} bytes" in done.stdout
    assert "MS-SSIM" in done.stdout


def test_models_of_one_preset_are_told_apart_by_the_names_of_their_bundles(bundle: Bundle, tmp_path: Path):
    write_bundle(bundle, tmp_path / "mine.condic")
    codec = load_codec(str(tmp_path / "mine.condic"), "ort")
    assert CondicCodec(codec, (1,)).name == "condic mine"
