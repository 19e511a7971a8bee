"""TensorRT is found under any of its names; a missing or broken one gives a line that says what to do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import pytest

from condic.errors import BackendError
from condic.runtime.tensorrt_library import adopt, find_tensorrt


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    find_tensorrt.cache_clear()
    yield
    find_tensorrt.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules are the only ones called tensorrt or the like."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    true_import = importlib.import_module

    def import_module(name: str) -> object:
        if not (tmp_path / f"{name}.py").exists():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return true_import(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    return tmp_path


MODULE = """
__version__ = "{}"
class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2
"""


def test_without_tensorrt_the_line_says_how_to_install_it(packages: Path):
    with pytest.raises(BackendError, match=r"not installed; pip install '\.\[tensorrt\]' in condic's sources"):
        find_tensorrt()


@pytest.mark.parametrize(("version", "old"), [("8.5.2", True), ("7.1.3", True), ("8.6.0", False), ("10.3.0", False)])
def test_one_that_is_too_old_is_told(packages: Path, version: str, old: bool):
    (packages / "tensorrt.py").write_text(MODULE.format(version))
    if old:
        with pytest.raises(
            BackendError, match=rf"TensorRT {version} is older than 8\.6, .*update it, or use --backend"
        ):
            find_tensorrt()
    else:
        assert find_tensorrt().version == version
    del sys.modules["tensorrt"]


def test_one_that_fails_without_a_word_is_told_by_the_kind_of_error(packages: Path):
    (packages / "tensorrt.py").write_text("raise ImportError")
    with pytest.raises(BackendError, match="tensorrt is installed and does not load: ImportError; reinstall it"):
        find_tensorrt()


@pytest.mark.parametrize(
    ("module", "shown"),
    [("tensorrt", "TensorRT 9.2"), ("tensorrt_rtx", "TensorRT-RTX 1.2"), ("tensorrt_rtx_bindings", "TensorRT-RTX 1.2")],
)
def test_each_name_is_tried(packages: Path, module: str, shown: str):
    (packages / f"{module}.py").write_text(MODULE.format(shown.split()[1]))
    found = find_tensorrt()
    assert str(found) == shown
    assert found.api is sys.modules.pop(module)


def test_the_full_tensorrt_comes_first(packages: Path):
    for name, version in (("tensorrt", "10.3.0"), ("tensorrt_rtx_bindings", "1.7.1")):
        (packages / f"{name}.py").write_text(MODULE.format(version))
    assert str(find_tensorrt()) == "TensorRT 10.3.0"
    sys.modules.pop("tensorrt")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise OSError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10: cannot open"),
        ("raise ImportError('undefined symbol: x\\nmore')", "undefined symbol: x"),
        ("import of_no_such_name", "of_no_such_name"),
    ],
)
def test_a_broken_tensorrt_is_named_with_its_reason(packages: Path, code: str, reason: str):
    (packages / "tensorrt.py").write_text(code)
    with pytest.raises(BackendError, match="tensorrt is installed and does not load") as error:
        find_tensorrt()
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


class Severity(IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Logger:
    """ILogger as far as it goes."""

    Severity = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


def test_errors_are_kept_and_warnings_are_not():
    found = adopt(SimpleNamespace(ILogger=Logger, __version__="8.6.1"), "tensorrt")
    assert found.last_error() == "it does not say why"
    found.logger.log(Severity.ERROR, "first")
    found.logger.log(Severity.INTERNAL_ERROR, "the last  one\nin two lines")
    found.logger.log(Severity.WARNING, "nothing")
    assert found.last_error() == "the last one"
    assert found.last_error() == "it does not say why"
