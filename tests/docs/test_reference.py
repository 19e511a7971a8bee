"""docs/cli.md and docs/python.md are what the programs and docstrings say."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import condic

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli", "python"])
def test_the_page_is_what_the_script_makes(page: str, reference: ModuleType):
    text = (DOCS / f"{page}.md").read_text()
    made = getattr(reference, f"{page}_reference")()
    assert reference.replaced(text, made) == text, "run `make reference`"


def test_every_public_name_is_described(reference: ModuleType):
    page = (DOCS / "python.md").read_text()
    for name in set(condic.__all__) - {"__version__"}:
        assert f"`condic.{name}`" in page


def test_every_option_of_every_program_is_described(reference: ModuleType):
    page = (DOCS / "cli.md").read_text()
    for name, program in reference.PROGRAMS.items():
        chapter = page.split(f"\n# {name}\n")[-1].split("\n# ")[0] if name != "condic-run" else page
        for command in getattr(program, "commands", {name: program}).values():
            for parameter in command.params:
                assert all(f"`{option}`" in chapter for option in parameter.opts if option.startswith("-"))


def test_every_installed_program_has_a_reference(reference: ModuleType):
    installed = {e.name for e in importlib.metadata.distribution("condic").entry_points.select(group="console_scripts")}
    assert installed == set(reference.PROGRAMS)
