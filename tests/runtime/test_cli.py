"""condic-run: what it writes where, and one line with exit code 2 for whatever the input was."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condic.runtime.bitstream import read_stream
from condic.runtime.bundle import Bundle, read_bundle, write_bundle
from condic.runtime.cli import main
from condic.runtime.shipped import find_bundle, shipped_bundles

FACTS = {"bytes", "bpp", "width", "height", "quality", "backend", "seconds"}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `--json` printed: standard output must be exactly one object."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Outcome]
Watch = Callable[[], Callable[[], None]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], bundle_path: Path) -> Run:
    """Runs condic-run in this process with preset t; a bug escapes as the exception that it is."""
    pytest.importorskip("onnxruntime")

    def call(*arguments: object, model: object = bundle_path) -> Outcome:
        words = [str(x) for x in arguments]
        if model is not None and words[0] in ("encode", "decode", "preview", "verify", "doctor"):
            words += ["--model", str(model)]
        monkeypatch.setattr(sys, "argv", ["condic-run", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return Outcome(exit_.value.code or 0, captured.out, captured.err)  # type: ignore[arg-type]

    return call


def in_process_of_its_own(*arguments: object, before: str = "", cwd: Path | None = None) -> Outcome:
    """Runs condic-run in a new Python; `before` is code that runs first."""
    command = [sys.executable, "-c", f"{before}\nfrom condic.runtime.cli import main\nmain()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def picture(tmp_path: Path, drawing: Callable[..., np.ndarray]) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(drawing(60, 70)).save(path)
    return path


@pytest.fixture
def coded(picture: Path, codec: Any) -> Path:
    """The picture's file."""
    path = picture.with_suffix(".cdic")
    path.write_bytes(codec.encode(np.asarray(Image.open(picture)), 40))
    return path


@pytest.fixture
def watch_folder(tmp_path: Path) -> Callable[[], Callable[[], None]]:
    """`check = watch_folder()`, then `check()`: nothing came, went or changed in between, not even a hidden file."""

    def look() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    def watch() -> Callable[[], None]:
        before = look()

        def check() -> None:
            assert look() == before

        return check

    return watch


def assert_refused(outcome: Outcome, *words: object, code: int = 2) -> None:
    """Exactly one line on standard error, which says all the words; nothing on standard output."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("condic-run: ")
    assert outcome.err.endswith("\n")
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert str(word) in outcome.err


def test_a_picture_goes_through_encode_and_decode(run: Run, picture: Path, tmp_path: Path) -> None:
    coded, decoded = tmp_path / "a.cdic", tmp_path / "b.png"
    outcome = run("encode", picture, coded, "-q", 50)
    assert (outcome.code, outcome.err) == (0, "")
    assert str(coded) in outcome.out
    assert f"{coded.stat().st_size} bytes" in outcome.out
    outcome = run("decode", coded, decoded)
    assert (outcome.code, outcome.err) == (0, "")
    with Image.open(decoded) as image:
        assert (image.size, image.mode) == ((70, 60), "RGB")


def test_json_is_one_object_with_the_facts(run: Run, picture: Path, tmp_path: Path) -> None:
    coded = tmp_path / "a.cdic"
    for outcome in (
        run("encode", picture, coded, "-q", 50, "--json"),
        run("decode", coded, tmp_path / "b.png", "--json"),
        run("preview", coded, tmp_path / "c.png", "--json"),
        run("verify", coded, "--json"),
    ):
        facts = outcome.json
        assert facts.keys() >= FACTS
        size = coded.stat().st_size
        assert (facts["bytes"], facts["width"], facts["height"], facts["quality"]) == (size, 70, 60, 50)
        assert facts["bpp"] == pytest.approx(size * 8 / 4200)
        assert facts["backend"] == "ort"
        assert outcome.out.count("\n") == 1
        assert all(seconds >= 0 for seconds in facts["seconds"].values())
        assert facts["seconds"]["total"] > 0


def test_info_says_what_a_file_is(run: Run, tmp_path: Path, codec: Any, drawing: Callable[..., np.ndarray]) -> None:
    path = tmp_path / "grey.cdic"
    path.write_bytes(codec.encode(drawing(33, 44, 2), 7))
    facts, size = run("info", path, "--json").json, path.stat().st_size
    sections = {
        f"latent {s.kind}" if s.kind < 64 else "alpha": len(s.payload) for s in read_stream(path.read_bytes()).sections
    }
    assert facts == {
        "bytes": size, "bpp": size * 8 / (33 * 44), "width": 44, "height": 33, "quality": 7, "grey": True,
        "alpha": True, "model": codec.bundle.id.hex(), "model_name": None,
        "sections": sections, "metadata": {},
    }  # fmt: skip
    text = run("info", path)
    assert text.code == 0
    assert "44x33 grey with alpha, quality 7" in text.out


def test_verify_prints_a_hash_of_the_latents(run: Run, coded: Path, codec: Any) -> None:
    digest = codec.decode(coded.read_bytes(), latents=True).latents_sha256()
    assert run("verify", coded).out.splitlines()[-1] == f"latents_sha256 {digest}"
    assert run("verify", coded, "--json").json["latents_sha256"] == digest


def test_verify_prints_the_same_hash_on_every_backend(
    run: Run, coded: Path, available_settings: dict[str, Any]
) -> None:
    backends = {setting.backend for setting in available_settings.values()}
    assert len({run("verify", coded, "--backend", name, "--json").json["latents_sha256"] for name in backends}) == 1


def test_verify_fails_with_exit_code_1(run: Run, coded: Path) -> None:
    data = bytearray(coded.read_bytes())
    data[-10] ^= 4
    coded.write_bytes(data)
    assert_refused(run("verify", coded), coded, "damaged", code=1)


def test_doctor_lists_every_backend(run: Run, available_settings: dict[str, Any]) -> None:
    rows = {row["backend"]: row for row in run("doctor", "--json").json["backends"]}
    assert set(rows) >= {"ort", "openvino", "torch"}
    for setting in available_settings.values():
        assert rows[setting.backend]["works"] is True
        assert "8 known-answer tests passed" in rows[setting.backend]["detail"]
    outcome = run("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(outcome.out.splitlines()) == len(rows)


def test_doctor_names_a_backend_that_fails_its_known_answer(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    graphs = tuple(replace(g, known_answer="0" * 64) if g.role == "context_2" else g for g in bundle.manifest.graphs)
    write_bundle(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)), tmp_path / "odd.condic")
    failed = run("doctor", "--json", model=tmp_path / "odd.condic")
    assert failed.code == 1
    for row in json.loads(failed.out)["backends"]:
        assert row["works"] is False
        assert f"backend {row['backend']}" in row["detail"]
    outcome = run("doctor", model=tmp_path / "odd.condic")
    assert "ort        no     backend ort refused: graph context_2 does not give its known answer" in outcome.out


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".tif", ".bmp", ".ppm"])
def test_pictures_are_written_in_the_format_of_their_suffix(run: Run, coded: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    assert run("decode", coded, target).code == 0
    with Image.open(target) as image:
        assert image.size == (70, 60)


@pytest.mark.parametrize("command", ["encode", "decode", "preview"])
def test_an_existing_file_is_kept_unless_forced(
    run: Run, picture: Path, coded: Path, command: str, watch_folder: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (picture, coded) if command == "encode" else (coded, picture)
    check, before = watch_folder(), target.read_bytes()
    assert_refused(run(command, source, target), target, "exists", "--force")
    assert_refused(run(command, source, target, model="nowhere"), target, "exists")  # before any work
    with monkeypatch.context() as late:  # or it comes while the work is done
        module = "encode" if command == "encode" else "decode"
        late.setattr(f"condic.runtime.commands.{module}.check_target", lambda *_, **__: None)
        assert_refused(run(command, source, target), target, "exists")
    check()
    assert run(command, source, target, "--force", *(["-q", 3] if command == "encode" else [])).code == 0
    assert target.read_bytes() != before


@pytest.mark.parametrize("option", ["--max-bytes", "--bpp", "--psnr"])
def test_a_limit_chooses_the_level_and_says_in_how_many_passes(
    run: Run, picture: Path, tmp_path: Path, codec: Any, option: str
) -> None:
    coded, most = tmp_path / "a.cdic", len(codec.encode(picture, 20)) + 1
    limit = [option, {"--max-bytes": most, "--bpp": most * 8 / 4200, "--psnr": 5}[option]]
    facts = run("encode", picture, coded, *limit, "--json").json
    assert 1 < facts["passes"] <= 8
    assert coded.read_bytes() == codec.encode(picture, facts["quality"])
    if option != "--psnr":
        assert coded.stat().st_size <= most < len(codec.encode(picture, facts["quality"] + 1))
    again = run("encode", picture, coded, *limit, "--force")
    assert again.out.rstrip().endswith(f", {facts['passes']} passes")
    assert "passes" not in run("encode", picture, coded, "-q", 3, "--force").out


@pytest.mark.parametrize("limit", [["--max-bytes", 20], ["--bpp", 0.001], ["--psnr", 90]])
def test_a_limit_out_of_reach_is_refused(
    run: Run, picture: Path, tmp_path: Path, limit: list[Any], watch_folder: Watch
) -> None:
    check = watch_folder()
    assert_refused(run("encode", picture, tmp_path / "a.cdic", *limit), picture, "level")
    check()


def test_limits_of_pillow_do_not_count(
    run: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(picture) as image:
        image.save(picture, icc_profile=b"profile" * 9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr("PIL.PngImagePlugin.MAX_TEXT_CHUNK", 10)
    outcome = run("encode", picture, tmp_path / "a.cdic")
    assert (outcome.code, outcome.err) == (0, "")
    assert run("info", tmp_path / "a.cdic", "--json").json["metadata"] == {"icc_profile": 63}


def test_a_preview_of_cic_sr_is_small_or_super_resolved(
    run: Run, picture: Path, tmp_path: Path, data_folder: Path
) -> None:
    coded, model = tmp_path / "a.cdic", data_folder / "cic-sr-t.condic"
    assert run("encode", picture, coded, model=model).code == 0
    for options, size in (((), (18, 15)), (("--sr",), (70, 60))):
        assert run("preview", coded, tmp_path / "out.png", "--force", *options, model=model).code == 0
        with Image.open(tmp_path / "out.png") as image:
            assert image.size == size


def test_info_says_what_is_guarded_and_decode_takes_the_model_that_a_file_names(
    run: Run, picture: Path, tmp_path: Path
) -> None:
    if "cic-sr-s" not in shipped_bundles():
        pytest.skip("no weights of cic-sr are shipped")
    coded = tmp_path / "a.cdic"
    assert run("encode", picture, coded, "-q", 48, model="cic-sr-s").code == 0
    facts = run("info", coded, "--json").json
    guard, size = facts["guard"], facts["sections"]["guard"]
    assert (guard["bits"], guard["share"]) == (8 * size, size / facts["bytes"])
    latents = read_bundle(find_bundle("cic-sr-s")).manifest.latents
    assert guard["deltas"] == {x.name: x.guard.at(48).describe() for x in latents if x.guard}
    assert f"guarded values {guard['values']}, {8 * size} bits, " in run("info", coded).out
    assert run("decode", coded, tmp_path / "out.png", model=None).code == 0


def test_metadata_is_carried_and_stripped(run: Run, tmp_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera", 3
    Image.fromarray(drawing(40, 90)).save(tmp_path / "a.jpg", exif=exif, icc_profile=b"profile")
    coded, decoded = tmp_path / "a.cdic", tmp_path / "a.png"
    run("encode", tmp_path / "a.jpg", coded)
    assert set(run("info", coded, "--json").json["metadata"]) == {"icc_profile", "exif"}
    assert "uncompressed" in run("info", coded).out
    run("decode", coded, decoded)
    with Image.open(decoded) as image:
        assert image.info["icc_profile"] == b"profile"
        assert (image.getexif()[0x010F], image.getexif()[0x0112]) == ("Camera", 1)
    run("encode", tmp_path / "a.jpg", coded, "--strip", "--force")
    assert run("info", coded, "--json").json["metadata"] == {}
    run("decode", coded, decoded, "--force")
    with Image.open(decoded) as image:
        assert "icc_profile" not in image.info
        assert not len(image.getexif())


def test_warnings_are_lines_on_standard_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 9), 40000, np.uint16)).save(path)
    outcome = run("encode", path, tmp_path / "a.cdic")
    assert outcome.code == 0
    assert outcome.err == f"condic-run: warning: {path}: more than 8 bits a sample are reduced to 8\n"


def test_exif_orientation_is_applied(run: Run, tmp_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawing(40, 90)).save(tmp_path / "turned.jpg", exif=exif)
    facts = run("encode", tmp_path / "turned.jpg", tmp_path / "turned.cdic", "--json").json
    assert (facts["width"], facts["height"]) == (40, 90)


@pytest.mark.parametrize("damage", ["zero-length", "truncated", "flipped", "foreign", "text"])
@pytest.mark.parametrize("command", ["decode", "preview", "info", "verify"])
def test_a_bad_file_is_refused_in_one_line(
    run: Run, picture: Path, coded: Path, tmp_path: Path, damage: str, command: str, watch_folder: Watch
) -> None:
    data = bytearray(coded.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    data = {
        "zero-length": bytearray(), "truncated": data[: len(data) // 2], "foreign": bytearray(picture.read_bytes()),
        "text": bytearray(b"There was once a file that was no picture at all.\n"),
    }.get(damage, data)  # fmt: skip
    coded.write_bytes(data)
    check = watch_folder()
    outcome = run(command, coded, *([tmp_path / "out.png"] if command in ("decode", "preview") else []))
    assert_refused(outcome, coded, code=1 if command == "verify" else 2)
    check()


@pytest.mark.parametrize("command", ["decode", "info", "verify"])
def test_a_file_over_the_limit_is_not_called_damaged(run: Run, coded: Path, tmp_path: Path, command: str) -> None:
    targets = [tmp_path / "out.png"] if command == "decode" else []
    assert_refused(run(command, coded, *targets, "--max-pixels", 10), coded, "over the limit of 10 pixels", code=2)


@pytest.mark.parametrize("command", ["decode", "preview", "verify"])
def test_another_model_s_file_is_refused(
    run: Run, coded: Path, bundle: Bundle, tmp_path: Path, command: str, watch_folder: Watch
) -> None:
    other = replace(bundle, manifest=replace(bundle.manifest, bundle_id="ab" * 32))
    write_bundle(other, tmp_path / "other.condic")
    check = watch_folder()
    targets = [tmp_path / "out.png"] if command != "verify" else []
    outcome = run(command, coded, *targets, model=tmp_path / "other.condic")
    assert_refused(outcome, bundle.id.hex(), "abababababababab", "--model")
    check()


def not_an_image(path: Path) -> None:
    path.write_text("no image")


def cut_image(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [not_an_image, cut_image, no_bytes, gone, a_folder])
def test_a_bad_picture_is_refused_in_one_line(
    run: Run, picture: Path, tmp_path: Path, spoil: Callable[[Path], None], watch_folder: Watch
) -> None:
    spoil(picture)
    check = watch_folder()
    assert_refused(run("encode", picture, tmp_path / "out.cdic"), picture)
    check()


@pytest.mark.parametrize("command", ["decode", "preview", "info", "verify"])
@pytest.mark.parametrize("spoil", [gone, a_folder])
def test_a_file_that_cannot_be_read_is_refused(
    run: Run, coded: Path, tmp_path: Path, command: str, spoil: Callable[[Path], None]
) -> None:
    spoil(coded)
    targets = [tmp_path / "out.png"] if command in ("decode", "preview") else []
    assert_refused(run(command, coded, *targets), coded)


@pytest.mark.parametrize("command", ["encode", "decode", "preview"])
def test_bad_targets_are_refused_before_any_work(
    run: Run, picture: Path, coded: Path, tmp_path: Path, command: str, watch_folder: Watch
) -> None:
    source, suffix = (picture, "cdic") if command == "encode" else (coded, "png")
    folder = tmp_path / f"folder.{suffix}"
    folder.mkdir()
    check = watch_folder()
    assert_refused(run(command, source, tmp_path / "none" / f"out.{suffix}"), tmp_path / "none", "no such folder")
    assert_refused(run(command, source, folder), folder, "is a folder")
    for name in ("out.xyz", "out", ".png", "out.png" if command == "encode" else "out.cdic"):
        assert_refused(
            run(command, source, tmp_path / name), name, "suffix", ".cdic" if command == "encode" else ".png"
        )
    check()


def test_a_format_that_cannot_hold_the_picture_is_refused(
    run: Run, tmp_path: Path, codec: Any, drawing: Callable[..., np.ndarray], watch_folder: Watch
) -> None:
    path = tmp_path / "alpha.cdic"
    path.write_bytes(codec.encode(drawing(20, 20, 4), 7))
    check = watch_folder()
    assert_refused(run("decode", path, tmp_path / "out.jpg"), tmp_path / "out.jpg")
    check()


@pytest.mark.parametrize("command", ["encode", "decode", "preview", "verify"])
def test_unknown_backends_and_models_are_refused(
    run: Run, picture: Path, coded: Path, tmp_path: Path, command: str
) -> None:
    target = tmp_path / ("out.cdic" if command == "encode" else "out.png")
    words = [command, picture if command == "encode" else coded] + ([] if command == "verify" else [target])
    assert_refused(run(*words, "--backend", "abacus"), "unknown backend 'abacus'", "ort", "auto")
    assert_refused(run(*words, model="dcic-sgp-q"), "dcic-sgp-q", "dcic-sgp-s")
    assert_refused(run(*words, model=tmp_path / "none.condic"), tmp_path / "none.condic")
    assert_refused(run(*words, model=picture), picture)
    assert not target.exists()


def test_an_image_over_the_limit_is_refused(
    run: Run, picture: Path, coded: Path, tmp_path: Path, watch_folder: Watch
) -> None:
    check = watch_folder()
    assert_refused(run("encode", picture, tmp_path / "out.cdic", "--max-pixels", 4199), picture, "70x60", "4199")
    assert_refused(run("decode", coded, tmp_path / "out.png", "--max-pixels", 4199), coded, "70x60", "4199")
    assert_refused(run("info", coded, "--max-pixels", 4199), coded, "70x60", "4199")
    check()
    assert run("encode", picture, tmp_path / "out.cdic", "--max-pixels", 4200).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "a.png", "b.cdic", "-q", "64"], ["encode", "a.png", "b.cdic", "-q", "-1"], ["encode", "a.png"],
        ["encode", "a.png", "b.cdic", "-q", "x"], ["encode", "a.png", "b.cdic", "--bpp", "0"],
        ["encode", "a.png", "b.cdic", "-q", "3", "--bpp", "1"],
        ["encode", "a.png", "b.cdic", "--max-bytes", "900", "--psnr", "30"],
        ["decode", "a", "b.png", "--threads", "-1"], ["encrypt", "a"],
        ["decode", "a", "b.png", "--max-pixels", "0"], ["info"], ["info", "a", "--nonsense"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_refused_in_one_line(words: list[str], tmp_path: Path) -> None:
    outcome = in_process_of_its_own(*words, cwd=tmp_path)
    assert_refused(outcome, "--help")
    assert not list(tmp_path.iterdir())


def test_no_arguments_print_the_help_as_it_is() -> None:
    outcome = in_process_of_its_own()
    text = outcome.err or outcome.out  # before click 8.2
    assert text.startswith("Usage: condic-run [OPTIONS] COMMAND [ARGS]...\n")
    assert "\n  encode      Compresses an image.\n" in text


def test_a_picture_that_a_format_cannot_hold_is_refused_before_it_is_decoded(
    run: Run, codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, image in (("wide", np.zeros((1, 16384, 3), np.uint8)), ("clear", np.zeros((9, 9, 4), np.uint8))):
        (tmp_path / f"{name}.cdic").write_bytes(codec.encode(image, 3))
    (tmp_path / "opaque.cdic").write_bytes(codec.encode(np.full((9, 9, 4), 255, np.uint8), 3))
    assert run("decode", tmp_path / "opaque.cdic", tmp_path / "opaque.jpg").code == 0
    monkeypatch.setattr("condic.runtime.codec.Codec.decode", lambda *_: pytest.fail("it was decoded"))
    refused = {
        "wide": ("wide.webp", "WEBP cannot hold 16384x1, more than 16383"),
        "clear": ("c.jpg", "JPEG cannot hold alpha"),
    }
    for name, (target, message) in refused.items():
        assert_refused(run("decode", tmp_path / f"{name}.cdic", tmp_path / target), target, message)
    assert run("decode", tmp_path / "wide.cdic", tmp_path / "small.webp", "--scale", "1/8").code == 0
    part = ("--region", "0,0,16384,1")
    assert_refused(run("decode", tmp_path / "wide.cdic", tmp_path / "a.webp", *part), refused["wide"][1])
    monkeypatch.undo()


def test_a_name_that_is_too_long_is_refused_in_one_line(run: Run, picture: Path, tmp_path: Path) -> None:
    assert_refused(run("encode", picture, tmp_path / ("n" * 300 + ".cdic")), "File name too long")


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_full_disk_leaves_nothing_behind(
    run: Run,
    picture: Path,
    coded: Path,
    tmp_path: Path,
    command: str,
    watch_folder: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, mode, **_: FullDisk(path, mode))
    check = watch_folder()
    source, target = (picture, tmp_path / "out.cdic") if command == "encode" else (coded, tmp_path / "out.png")
    assert_refused(run(command, source, target), target, "the disk is full")
    check()


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits of POSIX")
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_write_that_stops_halfway_leaves_nothing_behind(
    picture: Path, coded: Path, tmp_path: Path, bundle_path: Path, command: str, watch_folder: Watch
) -> None:
    """The kernel really stops it: the process may write files of 100 bytes only."""
    source, target = (picture, tmp_path / "out.cdic") if command == "encode" else (coded, tmp_path / "out.png")
    check = watch_folder()
    limit = (
        "import sys, resource\nsys.dont_write_bytecode = True\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    )
    outcome = in_process_of_its_own(command, source, target, "--model", bundle_path, before=limit)
    assert_refused(outcome, target)
    check()


def test_a_folder_that_is_read_only_is_refused(
    run: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert_refused(run("encode", picture, folder / "out.cdic"), folder / "out.cdic", "not writable", "choose another")
    assert not list(folder.iterdir())


def test_programs_can_rely_on_exit_codes_and_streams(picture: Path, tmp_path: Path, bundle_path: Path) -> None:
    """What the tests above see from inside holds for a process, libraries' own chatter included."""
    coded = tmp_path / "a.cdic"
    done = in_process_of_its_own("encode", picture, coded, "--model", bundle_path, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["bytes"] == coded.stat().st_size
    done = in_process_of_its_own("decode", coded, tmp_path / "b.png", "--model", bundle_path, "--json")
    assert (done.code, done.err) == (0, "")
    coded.write_bytes(coded.read_bytes()[:-1])
    assert_refused(in_process_of_its_own("decode", coded, tmp_path / "c.png", "--model", bundle_path), coded)
    assert_refused(in_process_of_its_own("verify", coded, "--model", bundle_path), coded, code=1)
    assert not (tmp_path / "c.png").exists()


def test_help_and_version_are_printed(run: Run) -> None:
    for words in (["--help"], ["-h"], ["encode", "--help"], ["--version"]):
        outcome = run(*words, model=None)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith(("Usage: condic-run", "condic 0."))


def test_the_installed_program_runs(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("condic-run")
    if not program.exists():
        pytest.skip("condic-run is not beside this Python")
    done = subprocess.run([program, "info", tmp_path / "none.cdic"], capture_output=True, text=True, check=False)
    assert_refused(Outcome(done.returncode, done.stdout, done.stderr), tmp_path / "none.cdic")


def test_the_default_model_is_the_shipped_one(run: Run, picture: Path, tmp_path: Path, shipped_bundle: Bundle) -> None:
    coded = tmp_path / "a.cdic"
    assert run("encode", picture, coded, model=None).code == 0
    assert run("info", coded, "--json").json["model"] == shipped_bundle.id.hex()
    assert run("info", coded, "--json").json["model_name"] == "dcic-sgp-s"
    assert f"model {shipped_bundle.id.hex()} (dcic-sgp-s)" in run("info", coded).out
    assert read_bundle(Path(shipped_bundle.source)).id == shipped_bundle.id


def test_a_shipped_name_means_the_shipped_model_whatever_lies_here(
    shipped_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dcic-sgp-s").mkdir()
    assert find_bundle("dcic-sgp-s") == Path(shipped_bundle.source)
    assert find_bundle("./dcic-sgp-s") == Path("dcic-sgp-s")


def test_threads_and_backend_reach_the_codec(
    run: Run, picture: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from condic.runtime import codec as module
    from condic.runtime.commands import setup

    asked: list[tuple[str, int]] = []
    load = module.load_codec

    def noted(model: str, backend: str = "auto", threads: int = 0) -> Any:
        asked.append((backend, threads))
        return load(model, backend, threads)

    monkeypatch.setattr(module, "load_codec", noted)
    monkeypatch.setattr(setup, "_opened", setup._opened.__wrapped__)
    for words in (("encode", picture, tmp_path / "a.cdic"), ("decode", coded, tmp_path / "a.png"), ("verify", coded)):
        assert run(*words, "--backend", "ort", "--threads", "3").code == 0
    assert asked == [("ort", 3)] * 3
    assert run("doctor", "--threads", "2").code == 0
    assert ("ort", 2) in asked[3:]
    assert all(threads == 2 for _, threads in asked[3:])
