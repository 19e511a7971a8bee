"""What the runtime may import: a decoder needs no PyTorch, and looking at a file no inference library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FORBIDDEN = {"torch", "onnx", "onnxscript", "condic.models", "condic.training", "condic.export", "condic.engines"}
HEAVY = {"onnxruntime", "openvino", "torch", "onnx", "safetensors"}


def modules_after(code: str, *arguments: object) -> set[str]:
    """Names in sys.modules after running code in a new Python."""
    code += "\nimport json, sys\nsys.stdout.write('\\n' + json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


EVERY_MODULE = """
import importlib, pkgutil
import condic, condic.runtime
for module in pkgutil.walk_packages(condic.runtime.__path__, "condic.runtime."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:  # a backend or a driver whose library is not installed, or has no libcuda
        assert module.name.startswith(("condic.runtime.backends.", "condic.runtime.cuda.pycuda_driver")), module.name
        assert not (error.name or "").startswith("condic"), error
"""

ROUND_TRIP = """
import sys
import numpy, condic
image = numpy.zeros((20, 20, 4), numpy.uint8)
condic.decode(condic.encode(image, model=sys.argv[1]), model=sys.argv[1])
"""

RUN = """
import sys
from condic.runtime.cli import main
try:
    main()
except SystemExit:
    pass
"""


def test_no_module_of_the_runtime_imports_torch_onnx_or_the_training_side() -> None:
    modules = modules_after(EVERY_MODULE)
    assert not modules & FORBIDDEN
    assert {"condic.runtime.codec", "condic.runtime.cli"} <= modules


def test_encoding_and_decoding_import_neither(bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    modules = modules_after(ROUND_TRIP, bundle_path)
    assert "onnxruntime" in modules
    assert not modules & FORBIDDEN


def test_import_condic_costs_nothing() -> None:
    modules = modules_after("import condic")
    assert not modules & (HEAVY | FORBIDDEN | {"numpy", "PIL"})


def test_info_and_help_import_no_inference_library(data_folder: Path) -> None:
    modules = modules_after(RUN, "info", data_folder / "golden" / "grey.cdic")
    assert "condic.runtime.bitstream" in modules
    assert not modules & (HEAVY | FORBIDDEN | {"numpy", "PIL"})
    for words in (["--help"], ["decode", "--help"], ["--version"]):
        assert not modules_after(RUN, *words) & (HEAVY | FORBIDDEN | {"numpy", "PIL"})


def test_the_help_of_condic_export_imports_no_pytorch() -> None:
    assert not modules_after(RUN.replace("condic.runtime.cli", "condic.export.cli"), "--help") & HEAVY
