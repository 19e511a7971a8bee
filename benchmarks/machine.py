"""What results were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = (
    "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "compressai", "pillow-jxl-plugin",
    "tensorrt", "tensorrt-rtx-cu13-libs", "pycuda",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Processor, how many of its threads this process may use, memory in bytes (0 where unknown), and software.

    `gpu` names the NVIDIA device and its driver where nvidia-smi does; `libraries` are those installed, with versions.
    """

    cpu: str
    processors: int
    memory: int
    gpu: str | None
    system: str
    python: str
    libraries: Mapping[str, str]

    def describe(self) -> str:
        """One line for people: the hardware and the system."""
        memory = f", {self.memory / 2**30:.0f} GiB" if self.memory else ""
        gpu = f", {self.gpu}" if self.gpu else ""
        return f"{self.cpu}, {self.processors} processors{memory}{gpu}, {self.system}"

    def software(self) -> str:
        """One line for people: Python and the libraries."""
        return ", ".join([f"Python {self.python}", *(f"{name} {text}" for name, text in self.libraries.items())])


def this_machine() -> Machine:
    """The machine that runs this."""
    return Machine(
        cpu=_cpu_name(),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        gpu=_gpu(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        libraries={name: found for name in _LIBRARIES if (found := _version(name))},
    )


def _cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


_PATIENCE = 20  # seconds


def _gpu() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):  # a driver that hangs
        return None
    lines = [", driver ".join(part.strip() for part in line.split(",")) for line in done.stdout.splitlines() if line]
    return "; ".join(lines) if done.returncode == 0 and lines else None


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
