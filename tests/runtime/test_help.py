"""Help in two tiers, completion in three shells, and how long it takes until a person sees something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from condic.runtime.bitstream import Limits
from condic.runtime.cli import cli

Program = Callable[..., Any]
COMMANDS = ["encode", "decode", "preview", "info", "verify", "doctor", "completion"]


def test_help_lists_the_commands_in_the_order_of_use(program: Program) -> None:
    text = program("--help").out.decode()
    assert re.findall(r"^  (\w+)  ", text, re.MULTILINE) == COMMANDS == list(cli.commands)
    assert "..." not in text.partition("Commands:")[2], "short descriptions fit"
    for code in ("0 done", "1 some", "2 bad", "130 interrupted"):
        assert code in " ".join(text.split())


def test_rare_options_are_in_the_second_tier_only(program: Program) -> None:
    basic, everything = (program("encode", tier).out.decode() for tier in ("--help", "--help-all"))
    assert "--help-all" in basic
    assert "None" not in everything  # a range without an end, as click has it
    assert "--help-all" not in program("doctor", "--help").out.decode()  # it has none
    for option in ("--backend", "--max-pixels"):
        assert option not in basic
        assert option in everything
    for option in ("--quality", "--bpp", "--max-bytes", "--psnr", "--out-dir", "--force", "--threads", "--strip"):
        assert option in basic


def test_the_largest_image_is_that_of_the_python_functions() -> None:
    for command in ("info", "decode"):
        assert next(x.default for x in cli.commands[command].params if x.name == "max_pixels") == Limits().pixels


def test_all_help_of_the_program_is_that_of_every_command(program: Program) -> None:
    text = program("--help-all").out.decode()
    assert [f"Usage: condic-run {name} " in text for name in COMMANDS] == [True] * len(COMMANDS)
    assert text.count("--max-pixels INTEGER") == 5


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("condic-run en", ["plain,encode"]), ("condic-run encode --max-b", ["plain,--max-bytes"]),
        ("condic-run decode --back", ["plain,--backend"]), ("condic-run decode --format w", ["plain,webp"]),
        ("condic-run encode ", ["file,"]), ("condic-run completion z", ["plain,zsh"]),
    ],
)  # fmt: skip
def test_the_program_completes_what_is_typed(typed: str, expected: list[str]) -> None:
    last = str(typed.count(" "))
    done = subprocess.run(
        [sys.executable, "-c", "from condic.runtime.cli import main\nmain()"], capture_output=True, text=True,
        env=os.environ | {"_CONDIC_RUN_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": last},
    )  # fmt: skip
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_for_this_program(program: Program, shell: str) -> None:
    done = program("completion", shell)
    assert (done.code, done.err) == (0, "")
    script = done.out.decode()
    assert f"_CONDIC_RUN_COMPLETE={shell}_complete" in script
    assert "condic-run" in script
    if shutil.which(shell):
        check = {"fish": ["fish", "--no-execute"]}.get(shell, [shell, "-n"])
        assert subprocess.run([*check, "/dev/stdin"], input=done.out, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_the_script(program: Program, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(program("completion", "bash").out)
    (tmp_path / "condic-run").write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "from condic.runtime.cli import main; main()" "$@"\n'
    )
    (tmp_path / "condic-run").chmod(0o755)
    lines = [
        "source script", "COMP_WORDS=(condic-run ver) COMP_CWORD=1",
        "_condic_run_completion condic-run", 'echo "${COMPREPLY[@]}"', "complete -p condic-run",
    ]  # fmt: skip
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "verify", done.stderr
    assert done.stdout.splitlines()[1].endswith("-F _condic_run_completion condic-run")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["encode", "--help"], ["info", "FILE"]], ids=" ".join)
def test_it_starts_at_once(words: list[str], data_folder: Path) -> None:
    """Compared with a program that imports click and no more, so that a busy machine is no reason to fail."""
    words = [str(data_folder / "golden" / "grey.cdic") if word == "FILE" else word for word in words]

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    pairs = [(seconds("from condic.runtime.cli import main\nmain()"), seconds("import click")) for _ in range(7)]
    assert median(program for program, _ in pairs) < 2.5 * median(bare for _, bare in pairs)
