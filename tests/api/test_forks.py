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
_WHILE_THE_FIRST_IS_OPENED = """
import condic.functions

load, begun, go_on = condic.functions.load_codec, threading.Event(), threading.Event()

def slowly(*arguments):
    begun.set()
    go_on.wait()
    return load(*arguments)

def open_another():
    condic.functions.load_codec = load
    condic.open_codec(model, backend).encode(image, 9)

condic.functions.load_codec = slowly
opening = threading.Thread(target=condic.open_codec, args=(model, backend))
opening.start()
begun.wait()
code = child(open_another)
go_on.set()
opening.join()
assert code == 7
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
    assert _run(_BEGIN + work, bundle_path, backend) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="programs that fork do so on Linux")
def test_a_process_that_is_forked_while_the_first_codec_is_opened_opens_one_too(bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    begin = "".join(x for x in _BEGIN.splitlines(keepends=True) if not x.startswith(("codec =", "data =")))
    assert _run(begin + _WHILE_THE_FIRST_IS_OPENED, bundle_path, "ort") == (0, "")


_WHILE_OTHERS_CODE = """
done = threading.Event()

def keep_coding():
    while not done.is_set():
        condic.decode(data, model, backend)
        codec.encode(image, 9)

threads = [threading.Thread(target=keep_coding) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(40):
    assert child(code) == 7
done.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="programs that fork do so on Linux")
@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_process_that_is_forked_while_other_threads_code_finds_nothing_locked(
    backend: str, bundle_path: Path
) -> None:
    if find_spec({"ort": "onnxruntime", "openvino": "openvino"}[backend]) is None:
        pytest.skip(f"{backend} is not installed")
    assert _run(_BEGIN + _WHILE_OTHERS_CODE, bundle_path, backend) == (0, "")


def _run(program: str, bundle_path: Path, backend: str) -> tuple[int, str]:
    command = [sys.executable, "-c", program, str(bundle_path), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr
