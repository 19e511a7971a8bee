"""What the README and the pages say can be done can be done: their commands run, in their order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from condic.engines.gpu import first_gpu

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PROGRAMS = {
    "condic-run": "condic.runtime.cli",
    "condic-export": "condic.export.cli",
    "condic-train": "condic.training.cli",
    "condic-bench": "condic.benchmarks.cli",
}
LONG = ("condic-export", "condic-train", "condic-bench")
"""Programs that are not run; that their options exist is checked."""
OTHERS = ("pip", "python3", ".", "sudo", "make", "export PATH=")
GENERATED = "<!-- made by"


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text().partition(GENERATED)[0]
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [block for block in blocks if not block.startswith(">>>")]  # doctests run elsewhere


def _lines(page: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for block in _blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


LINES = [(page, line) for page in PAGES for line in _lines(page)]
RUN = [(page, line) for page, line in LINES if "condic-run" in line and "mine" not in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder for each page, with the pictures that pages speak of, cropped, and the programs in bin/."""
    made: dict[str, Path] = {}

    def make(page: str) -> Path:
        if page not in made:
            made[page] = folder = tmp_path_factory.mktemp(Path(page).stem)
            with Image.open(ROOT / "docs" / "pictures" / "coffee.png") as image:
                image.crop((200, 100, 330, 200)).save(folder / "photo.png")
                image.crop((100, 0, 180, 70)).save(folder / "other.jpg")
            (folder / "bin").mkdir()
            for program, module in PROGRAMS.items():
                script = folder / "bin" / program
                script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from {module} import main; main()" "$@"\n')
                script.chmod(0o755)
        return made[page]

    return make


def _shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", f"set -eo pipefail; {line}"], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(("page", "line"), RUN)
def test_commands_work_in_their_order(page: str, line: str, folder: Callable[[str], Path]):
    done = _shell(line, folder(page))
    if re.search("--backend (ort-cuda|tensorrt)", line) and first_gpu() is None:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "--backend ort" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, line in LINES if line.startswith(LONG)])
def test_options_of_the_longer_commands_exist(page: str, line: str, folder: Callable[[str], Path]):
    program, *words = shlex.split(line)
    group = [words[0]] if program == "condic-bench" else []
    help_text = _shell(shlex.join([program, *group, "--help"]), folder(page)).stdout
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"{option}\b", help_text), f"{program} has no {option}"


def test_every_line_is_a_command_that_is_known():
    known = (*PROGRAMS, *OTHERS, "cat photo.png | condic-run")
    assert [line for _, line in LINES if not line.startswith(known)] == []
    assert {page for page, _ in RUN} >= {"README.md", "docs/quick-start.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")])
def test_python_examples_work_in_their_order(page: str, folder: Callable[[str], Path]):
    example = "\n".join(_blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", example], cwd=folder(page), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
