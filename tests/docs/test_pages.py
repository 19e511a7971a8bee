"""The pages show what programs print, and their links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "target",
    ["demo", "test", "aarch64", "lint", "wheel", "picture", "hexdump", "figure", "reference", "numbers", "benchmarks",
     "compressai", "clean"],
)  # fmt: skip
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


def test_the_figure_is_what_its_script_draws():
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['figure'](), end='')"
    script = ROOT / "docs" / "make_figure.py"
    done = subprocess.run([sys.executable, "-c", code, script], capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "docs" / "pictures" / "exactness.svg").read_text(), "run `make figure`"
    ElementTree.fromstring(done.stdout)


def test_the_models_page_shows_what_the_program_prints():
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-m", "condic.models"], capture_output=True, text=True)
    assert done.stdout.rstrip() in (ROOT / "docs" / "models.md").read_text(), (
        "paste what python -m condic.models prints"
    )
