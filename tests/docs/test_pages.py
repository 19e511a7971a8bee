"""What the README and the pages say can be done can be done."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAMS = {
    "condic-run": "condic.runtime.cli",
    "condic-export": "condic.export.cli",
    "condic-train": "condic.training.cli",
    "condic-bench": "condic.benchmarks.cli",
}
CHEAP = "condic-run "
"""Commands that are run; of the others only the options are checked."""


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in _blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(tuple(PROGRAMS))]


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    start = f"from {PROGRAMS[program]} import main; main()"
    return subprocess.run([sys.executable, "-c", start, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photograph that the README speaks of, cropped."""
    folder = tmp_path_factory.mktemp("readme")
    with Image.open(ROOT / "docs" / "pictures" / "coffee.png") as image:
        image.crop((200, 100, 330, 200)).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize("command", [c for c in _commands() if c.startswith(CHEAP) and "mine" not in c])
def test_commands_of_the_readme_work_in_their_order(command: str, folder: Path):
    done = _run(command, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in _commands() if not c.startswith(CHEAP)])
def test_options_of_the_longer_commands_exist(command: str, folder: Path):
    program, *words = shlex.split(command)
    group = [words[0]] if program == "condic-bench" else []
    help_text = _run(" ".join([program, *group, "--help"]), folder).stdout
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"{option}\b", help_text), f"{program} has no {option}"


def test_the_python_example_works(folder: Path):
    (example,) = _blocks("python")
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test", "lint", "wheel", "picture", "hexdump", "numbers", "clean"])
def test_make_knows_its_targets(target: str):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert link.startswith("https://arxiv.org/") or (path.parent / link).exists(), f"{page}: {link}"


def test_the_readme_names_every_folder():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    folders = {line.split("/")[0] for line in tracked if "/" in line and not line.startswith(".")}
    assert all(f"    {folder}/ " in README for folder in folders)


def test_examples_of_the_exactness_page_come_out_as_shown():
    failures, examples = doctest.testfile(str(ROOT / "docs" / "exactness.md"), module_relative=False)
    assert examples >= 4
    assert failures == 0


def test_the_models_page_shows_what_the_program_prints():
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-m", "condic.models"], capture_output=True, text=True)
    assert done.stdout.rstrip() in (ROOT / "docs" / "models.md").read_text(), (
        "paste what python -m condic.models prints"
    )
