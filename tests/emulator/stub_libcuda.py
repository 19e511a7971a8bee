"""Builds `stub_libcuda.cpp`, with every other function that pycuda links to: those fail."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")


def build_stub(pycuda_driver: Path, folder: Path) -> Path:
    """A folder with a libcuda.so.1 that pycuda's compiled module, given by path, can be loaded with."""
    source = SOURCE.read_text()
    linked = {name.decode() for name in re.findall(rb"\0(cu[A-Z]\w+)(?=\0)", pycuda_driver.read_bytes())}
    rest = sorted(name for name in linked if f" {name}(" not in source)
    target = folder / "stub.cpp"
    target.write_text(source + "".join(f"API int {name}() {{ return 801; }}\n" for name in rest))
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["g++", *flags, target, "-o", folder / "libcuda.so.1"], check=True, timeout=280)
    return folder
