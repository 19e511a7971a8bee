"""Processes that are forked from one that has a codec, as web servers fork theirs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_BEGIN = """
import os, sys, threading, warnings
import numpy as np
import condic

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about forks

image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
model = sys.argv[1]
backend = sys.argv[2]
codec = condic.open_codec(model, backend, 1)
data = codec.encode(image, 9)

def child(work):
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    work()
    sys.exit(7)

def code():
    assert codec.encode(image, 9) == data
"""


@pytest.mark.skipif(sys.platform != "linux", reason="programs that fork do so on Linux")
@pytest.mark.parametrize(
    "work",
    [
        "assert child(lambda: None) == 7",
        "assert child(code) == 7",
        "assert child(lambda: [condic.open_codec(model, backend, k).encode(image, 9) for k in range(1, 7)]) == 7",
        "assert child(lambda: child(code) == 7 or 1 / 0) == 7",
        "threading.Thread(target=condic.open_codec, args=(model, backend, 2)).start()\n"
        "assert child(lambda: condic.open_codec(model, backend, 3).encode(image, 9)) == 7",
    ],
    ids=["that does nothing", "that codes", "that opens more codecs", "that forks", "while a codec is opened"],
)
@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_forked_process_codes_and_ends(work: str, backend: str, bundle_path: Path) -> None:
    if find_spec({"ort": "onnxruntime", "openvino": "openvino"}[backend]) is None:
        pytest.skip(f"{backend} is not installed")
    program = [sys.executable, "-c", _BEGIN + work, str(bundle_path), backend]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
