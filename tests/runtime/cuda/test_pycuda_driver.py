"""The module that reaches CUDA through pycuda, on a libcuda that is a stub."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
from stub_libcuda import SOURCE, build_stub

from condic.runtime.cuda.arguments import packed

PROGRAM = Path(__file__).with_name("pycuda_on_stub.py")


def test_the_driver_module_works_on_a_stub_of_libcuda(bundle_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    package = importlib.util.find_spec("pycuda")
    if package is None or package.origin is None:
        pytest.skip("pycuda is not installed")
    if shutil.which("g++") is None or find_library("cuda"):
        pytest.skip("g++ is not installed, or an NVIDIA driver is")
    (module,) = Path(package.origin).parent.glob("_driver*.so")
    path = [str(SOURCE.parent), str(PROGRAM.parents[2] / "gpu"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(build_stub(module, tmp_path)), "PYTHONPATH": os.pathsep.join(path)
    }  # fmt: skip
    command = [sys.executable, PROGRAM, bundle_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert (done.stdout, done.stderr) == ("all passed\n", "")


def test_arguments_lie_where_a_compiler_puts_parameters() -> None:
    pair = np.zeros((), np.dtype([("a", np.uint64), ("b", np.uint8)], align=True))[()]
    block = packed([np.uint8(1), np.uint32(2), pair, np.uint8(3)])
    assert len(block) == 8 + 16 + 1
    assert block[:8] == bytes([1, 0, 0, 0, 2, 0, 0, 0])
