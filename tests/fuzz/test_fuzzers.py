"""A short run of each fuzzer over its seeds and a little beyond; docs/security.md tells of the long ones."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
FLAGS = ["-std=c++17", "-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]


def execute(*command: object) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stderr


def test_the_seeds_are_those_that_the_script_makes() -> None:
    """Files of the decoder's are another machine's to the last bit of a float: of them, the names."""
    pytest.importorskip("onnxruntime")
    specification = importlib.util.spec_from_file_location("make_corpus", FOLDER / "make_corpus.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    seeds = {path.name: path.read_bytes() for path in (script.CORPUS / "coder").iterdir()}
    assert script.coder_inputs() == seeds
    assert script.decoder_inputs().keys() == {path.name for path in (script.CORPUS / "decoder").iterdir()}


@pytest.fixture(scope="module")
def clang(tmp_path_factory: pytest.TempPathFactory) -> str:
    """clang++ that can build a fuzzer."""
    compiler = shutil.which("clang++")
    if compiler is None:
        pytest.skip("clang++ is not installed (Debian: apt install clang)")
    folder = tmp_path_factory.mktemp("clang")
    (folder / "nothing.cpp").write_text(
        'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
    )
    command = [compiler, *FLAGS, str(folder / "nothing.cpp"), "-o", str(folder / "nothing")]
    if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("clang++ has no libFuzzer or sanitizers (Debian: apt install libclang-rt-14-dev)")
    return compiler


@pytest.mark.slow
def test_the_entropy_coder_withstands_a_short_run(clang: str, tmp_path: Path) -> None:
    execute(clang, *FLAGS, "-Wall", "-Wextra", "-Werror", FOLDER / "coder_fuzzer.cpp", "-o", tmp_path / "fuzzer")
    (tmp_path / "found").mkdir()
    printed = execute(
        tmp_path / "fuzzer", "-runs=2000", "-seed=1", "-max_len=1024", f"-artifact_prefix={tmp_path}/",
        tmp_path / "found", FOLDER / "corpus" / "coder",
    )  # fmt: skip
    assert "Done 2000 runs" in printed


@pytest.mark.slow
def test_the_decoder_withstands_a_short_run(tmp_path: Path) -> None:
    for library in ("atheris", "onnxruntime"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed (pip install '.[dev]'; atheris has wheels for Linux on x86-64)")
    (tmp_path / "found").mkdir()
    printed = execute(
        sys.executable, FOLDER / "decoder_fuzzer.py", "-runs=300", "-seed=1", f"-artifact_prefix={tmp_path}/",
        tmp_path / "found", FOLDER / "corpus" / "decoder",
    )  # fmt: skip
    assert "Done 300 runs" in printed
