"""Several files in one run: all that can be done is done, what fails is named, and the summary says both."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condic.errors import CondicWarning, InputError
from condic.files import named_errors
from condic.runtime.codec import Codec
from condic.runtime.commands.setup import Setup
from condic.runtime.commands.tasks import Plan, Result, Task, perform

Program = Callable[..., Any]


def test_pictures_become_files_of_their_names_and_files_pictures(
    program: Program, pictures: list[Path], tmp_path: Path, codec: Codec
) -> None:
    done = program("encode", *pictures, "--out-dir", "coded", "-q", 9)
    assert (done.code, done.err) == (0, "")
    coded = [tmp_path / "coded" / f"{name}.cdic" for name in "abc"]
    size = sum(path.stat().st_size for path in coded)
    assert done.out.decode().startswith(f"3 done, 0 failed; {size} compressed bytes, ")
    for path, picture in zip(coded, pictures, strict=True):
        assert path.read_bytes() == codec.encode(picture, 9)
    done = program("decode", *coded, "--out-dir", "decoded", "--format", "webp", "--json")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert [x["source"] for x in facts["done"]] == [str(x) for x in coded]
    assert [x["target"] for x in facts["done"]] == [str(Path("decoded", f"{name}.webp")) for name in "abc"]
    assert facts["failed"] == []
    with Image.open(tmp_path / "decoded" / "b.webp") as image:
        assert np.array_equal(np.asarray(image), codec.decode(coded[1]).image)


def test_one_that_fails_does_not_stop_the_others(program: Program, pictures: list[Path], tmp_path: Path) -> None:
    pictures[1].write_text("no image")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c.cdic").write_bytes(b"here before")
    done = program("encode", "a.png", "b.png", "c.png", "d.png", "--out-dir", "out")
    assert done.code == 1
    assert done.out.decode().startswith("1 done, 3 failed; ")
    assert done.err.splitlines() == [
        "condic-run: b.png: not an image that Pillow reads",
        f"condic-run: {Path('out') / 'c.cdic'}: exists; give --force to replace it",
        "condic-run: d.png: No such file or directory",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.cdic", "c.cdic"}
    assert (tmp_path / "out" / "c.cdic").read_bytes() == b"here before"
    done = program("encode", "a.png", "b.png", "c.png", "--out-dir", "out", "--force", "--json")
    assert done.code == 1
    facts = json.loads(done.out)
    assert [x["source"] for x in facts["failed"]] == ["b.png"]
    assert len(facts["done"]) == 2
    assert (tmp_path / "out" / "c.cdic").read_bytes() != b"here before"


def test_a_damaged_file_does_not_stop_the_others(
    program: Program, pictures: list[Path], tmp_path: Path, codec: Codec
) -> None:
    data = codec.encode(pictures[0], 3)
    (tmp_path / "a.cdic").write_bytes(data[:-1])
    (tmp_path / "b.cdic").write_bytes(data)
    done = program("decode", "a.cdic", "b.cdic", "--out-dir", "new/folder")
    assert (done.code, done.err.partition(": truncated")[0]) == (1, "condic-run: a.cdic")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "b.png", "c.png"], "3 paths: give IN and OUT, or any number of IN and --out-dir"),
        (["a.png"], "one path: give IN and OUT"), (["a.png", "-", "--out-dir", "out"], "standard input has no name"),
        (["a.png", "sub/a.png", "--out-dir", "out"], "a.png and sub/a.png would both become out/a.cdic; use two"),
        ([f"{k % 2}/{k // 2}.png" for k in range(10)] + ["--out-dir", "out"], "out/2.cdic (and 2 more); use two"),
        (["a.png", "a.cdic", "--skip"], "--skip goes with --out-dir, and without --force"),
        (["a.png", "--out-dir", "out", "--skip", "--force"], "--skip goes with --out-dir, and without --force"),
        (["a.png", ""], "an empty name"),
        (["a.png", "b.png", "--out-dir", "c.png"], "c.png: cannot be made a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_before_any_work(
    program: Program, pictures: list[Path], tmp_path: Path, words: list[str], message: str
) -> None:
    done = program("encode", *words)
    assert (done.code, done.out) == (2, b"")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_a_terminal_shows_a_bar_and_a_pipe_does_not(
    program: Program, pictures: list[Path], bundle_path: Path, tmp_path: Path
) -> None:
    import pty

    reader, terminal = pty.openpty()
    words = ["encode", *map(str, pictures), "--out-dir", "out", "--model", str(bundle_path), "--force"]
    code = "from condic.runtime.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=terminal, check=False
    )
    os.close(terminal)
    shown = os.read(reader, 100000).decode()
    os.close(reader)
    assert done.returncode == 0
    assert "100%" in shown
    assert done.stdout.startswith(b"3 done")


def test_a_run_goes_on_where_it_was_interrupted(program: Program, pictures: list[Path], tmp_path: Path) -> None:
    assert program("encode", pictures[1], "--out-dir", "out").code == 0
    before = (tmp_path / "out" / "b.cdic").stat().st_mtime_ns
    done = program("encode", *pictures, "--out-dir", "out", "--skip")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(b"2 done, 0 failed, 1 skipped; ")
    assert (tmp_path / "out" / "b.cdic").stat().st_mtime_ns == before
    assert json.loads(program("encode", *pictures, "--out-dir", "out", "--skip", "--json").out)["skipped"] == 3


@pytest.mark.parametrize("fails", [False, True], ids=["before", "while"])
def test_what_another_run_makes_meanwhile_is_skipped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fails: bool
) -> None:
    tasks = tuple(Task(Path(name), tmp_path / name) for name in "abc")

    def work(task: Task) -> Result:
        assert task.source.name != "b" or fails
        (tmp_path / "b").touch()  # by the other run
        if task.source.name == "b":
            raise InputError("b: exists; give --force to replace it")
        return Result({"bytes": 7}, "")

    perform(Plan(tasks[1:] if fails else tasks, several=True, skipped=4, skip=True), work, SETUP)
    done = 1 if fails else 2
    assert capsys.readouterr().out.startswith(f"{done} done, 0 failed, 5 skipped; {7 * done} compressed bytes")


SETUP = Setup(None, "auto", 0, 1, as_json=False)
PLAN = Plan(tuple(Task(Path(name), Path(f"{name}.cdic")) for name in ("a", "b\nb", "i")), several=True)


@pytest.mark.parametrize(
    ("error", "message", "summary"),
    [
        (MemoryError(), "b b: not enough memory", "2 done, 1 failed; 14 compressed bytes"),
        (InputError("b\nb: broken"), "b b: broken", "2 done, 1 failed; 14 compressed bytes"),
        (OSError(errno.ENOSPC, ""), "x.cdic: the disk is full", "1 done, 1 failed, 1 not tried; 7 compressed bytes"),
    ],
)
def test_what_fails_of_several_is_a_line_and_a_full_disk_the_end(
    capsys: pytest.CaptureFixture[str], error: Exception, message: str, summary: str
) -> None:
    def work(task: Task) -> Result:
        if task is PLAN.tasks[1]:
            with named_errors(Path("x.cdic")):
                raise error
        return Result({"bytes": 7}, "")

    with pytest.raises(SystemExit) as end:
        perform(PLAN, work, SETUP)
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert err == f"condic-run: {message}\n"
    assert out.startswith(summary)


def test_warnings_name_the_file_of_several_that_they_are_about() -> None:
    def work(task: Task) -> Result:
        warnings.warn("of Pillow", UserWarning, stacklevel=1)
        warnings.warn(CondicWarning(f"{task.source}: of condic"), stacklevel=1)
        return Result({"bytes": 7}, "")

    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        perform(PLAN, work, SETUP)
    assert shown == [f"{name}: of {whose}" for name in ("a", "b\nb", "i") for whose in ("Pillow", "condic")]
