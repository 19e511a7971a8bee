"""How every program ends, whatever its command does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from condic.command_line import run_program
from condic.errors import CondicWarning

posix = pytest.mark.skipif(sys.platform == "win32", reason="streams and signals of POSIX")


Ended = Callable[[Callable[[], None]], object]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Ended:
    """The exit code of a program `work`, which may need the extra `train`; a bug escapes."""
    monkeypatch.setattr(sys, "argv", ["work"])

    def run(work: Callable[[], None]) -> object:
        with pytest.raises(SystemExit) as exit_:
            run_program("work", click.command()(work), "train")
        return exit_.value.code

    return run


def test_every_warning_is_a_line_and_what_python_did_before_comes_back(
    ended: Ended, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        for _ in range(2):
            warnings.warn("odd\nindeed", CondicWarning, stacklevel=1)

    numbers = [x for x in ("SIGINT", "SIGTERM", "SIGPIPE") if hasattr(signal, x)]
    before = [signal.getsignal(getattr(signal, x)) for x in numbers]
    assert ended(work) == 0
    assert capsys.readouterr().err == "work: warning: odd indeed\n" * 2
    assert [signal.getsignal(getattr(signal, x)) for x in numbers] == before


def test_a_library_that_is_missing_is_named_and_a_module_of_condic_is_a_bug(
    ended: Ended, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks(name: str) -> Callable[[], None]:
        def work() -> None:
            raise ModuleNotFoundError(name=name)

        return work

    assert ended(lacks("torch")) == 2
    assert capsys.readouterr().err == "work: this needs torch: pip install '.[train]' in condic's sources\n"
    with pytest.raises(ModuleNotFoundError):
        ended(lacks("condic.models.nothing"))


@posix
def test_an_error_that_a_library_makes_of_a_signal_is_the_signal(
    ended: Ended, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise RuntimeError("cancelled") from None

    assert ended(work) == 143
    assert capsys.readouterr().err == "work: interrupted; nothing was left half-written\n"


@posix
def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import click\nfrom condic.command_line import run_program\n"
        "def work():\n    file = open('number', 'w')\n    file.write(str(file.fileno()))\n"
        "run_program('work', click.command()(work))"
    )
    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], cwd=tmp_path, check=True)
    assert int((tmp_path / "number").read_text()) > 2


@posix
def test_an_error_that_cannot_be_said_has_its_exit_code() -> None:
    code = "from condic.command_line import run_program\nimport click\nrun_program('work', click.Group())"
    with Path(os.devnull).open("rb") as only_read:
        done = subprocess.run([sys.executable, "-c", code, "nothing"], stderr=only_read, check=False)
    assert done.returncode == 2
