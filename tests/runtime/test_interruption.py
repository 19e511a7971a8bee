"""Ctrl-C, or another signal to end, at any moment: one line, an exit code of its own, and nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from condic.runtime.codec import Codec

Program = Callable[..., Any]
LINE = "condic-run: interrupted; nothing was left half-written\n"
INTERRUPT = "import os, signal\ninterrupt = lambda: os.kill(os.getpid(), signal.SIGINT)\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_while_a_picture_is_written(
    program: Program, pictures: list[Path], tmp_path: Path, codec: Codec, name: str, code: int
) -> None:
    (tmp_path / "a.cdic").write_bytes(codec.encode(pictures[0], 3))
    before = sorted(tmp_path.iterdir())
    heeded = f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # whatever this process was started with
    after_writing = (
        INTERRUPT.replace("SIGINT", name)
        + heeded
        + (
            "from PIL import Image\nsave = Image.Image.save\n"
            "Image.Image.save = lambda *words, **options: (save(*words, **options), interrupt())\n"
        )
    )
    done = program("decode", "a.cdic", "out.png", before=after_writing)
    assert (done.code, done.out, done.err) == (code, b"", LINE)
    assert sorted(tmp_path.iterdir()) == before


def test_a_signal_that_is_ignored_stays_so(
    program: Program, pictures: list[Path], tmp_path: Path, codec: Codec
) -> None:
    (tmp_path / "a.cdic").write_bytes(codec.encode(pictures[0], 3))
    under_nohup = INTERRUPT.replace("SIGINT", "SIGHUP") + (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom PIL import Image\nsave = Image.Image.save\n"
        "Image.Image.save = lambda *words, **options: (save(*words, **options), interrupt())\n"
    )
    done = program("decode", "a.cdic", "out.png", before=under_nohup)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "out.png").exists()


def test_while_a_file_is_written_over_another(program: Program, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.cdic").write_bytes(b"here before")
    before = sorted(tmp_path.iterdir())
    while_writing = INTERRUPT + (
        "import pathlib\nreplace = pathlib.Path.replace\n"
        "pathlib.Path.replace = lambda *words: (interrupt(), replace(*words))\n"
    )
    done = program("encode", "a.png", "a.cdic", "--force", before=while_writing)
    assert (done.code, done.out, done.err) == (130, b"", LINE)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "a.cdic").read_bytes() == b"here before"


def test_while_a_backend_loads(program: Program, pictures: list[Path], tmp_path: Path) -> None:
    """Even where the interrupted library says that it is not installed, and another one would be."""
    while_loading = INTERRUPT + (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            try:\n"
        "                interrupt()\n"
        "            except BaseException:\n"
        "                raise ImportError('multiarray failed to import') from None\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    done = program("encode", "a.png", "out.cdic", before=while_loading)
    assert (done.code, done.out, done.err) == (130, b"", LINE)
    assert not (tmp_path / "out.cdic").exists()


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0])
def test_after_any_time(seconds: float, pictures: list[Path], tmp_path: Path, bundle_path: Path) -> None:
    """The program waits for standard input, having started; then it is done or interrupted, never in between."""
    words = ["encode", "-", "out.cdic"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from condic.runtime.cli import main\nmain()", *words, "--model", bundle_path],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(pictures[0].read_bytes())
    process.stdin.flush()
    time.sleep(2)
    process.stdin.close()
    process.stdin = None
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode == 130:
        assert err.decode() == LINE
        assert not (tmp_path / "out.cdic").exists()
    else:  # it was done, or Python was about to exit
        assert (process.returncode, err) in ((0, b""), (-signal.SIGINT, b""))
        assert (tmp_path / "out.cdic").read_bytes().startswith(b"CDIC")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_second_signal_leaves_the_clean_up_alone(tmp_path: Path) -> None:
    """Whoever ends a program may send several: a terminal that is closed, say."""
    code = f"""
import os, signal, sys, time, click
from pathlib import Path
from condic.command_line import run_program
from condic.files import writing

unlink = Path.unlink

def slow(path, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    unlink(path, **options)

Path.unlink = slow

@click.command()
def work():
    with writing(Path({str(tmp_path / "a.bin")!r})) as file:
        file.write(b"half")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

run_program("work", work)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (143, "work: interrupted; nothing was left half-written\n")
    assert not list(tmp_path.iterdir())


def test_a_signal_after_a_second_ends_a_clean_up_that_hangs() -> None:
    code = """
import os, signal, time, click
from condic.command_line import run_program

@click.command()
def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep(1.1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

run_program("work", work)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (143, "work: interrupted; nothing was left half-written\n")
