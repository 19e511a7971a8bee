"""Runs the CUDA kernels' sources on a CPU: threads are fibers, memory is the host's, the order is the test's choice.

`Emulator.launch` does what a GPU does with a `Launch`. `DeviceMemory` stands for a GPU's memory: each allocation ends
where its page ends, so that an access beyond it, or after it was freed, is an error of the launch.
"""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import condic.kernels
from condic.kernels.device import Launch

Order = Literal["forward", "reverse", "random"]

FOLDER = Path(__file__).parent
SOURCES = Path(condic.kernels.__file__).parent
FLAGS = [
    "-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE",
    "-Wall", "-Wextra", "-Werror",
    "-Wno-unknown-pragmas", "-DCONDIC_EMULATOR", f"-I{FOLDER}", f"-I{SOURCES}", f"-I{SOURCES / 'cuda'}",
]  # fmt: skip


_NO_ACCESS = 0  # PROT_NONE


class LaunchError(RuntimeError):
    """A launch that went wrong: memory that is not there, a deadlock, a barrier that not every thread reached."""


class Emulator:
    """The kernels, compiled by g++ for this machine."""

    def __init__(self, library: Path) -> None:
        self._emulate = ctypes.CDLL(str(library)).emulate

    def launch(self, launch: Launch, order: Order = "forward", seed: int = 0, resident: int = 3) -> None:
        """Runs a launch to its end, `resident` blocks at a time, on addresses of the host's memory.

        Blocks and threads go on in the order that is asked for whenever there is a choice; `random` also interrupts
        them where other threads could see it. Raises LaunchError.
        """
        (task,) = launch.arguments
        assert launch.grid[1:] == launch.block[1:] == (1, 1)
        message = ctypes.create_string_buffer(200)
        failed = self._emulate(
            launch.kernel.encode(), task.tobytes(), ctypes.c_size_t(task.nbytes), ctypes.c_uint32(launch.grid[0]),
            ctypes.c_uint32(launch.block[0]), ctypes.c_uint32(resident),
            ("forward", "reverse", "random").index(order), ctypes.c_uint64(seed), message, ctypes.c_size_t(200),
        )  # fmt: skip
        if failed:
            raise LaunchError(message.value.decode())


@lru_cache
def build_emulator() -> Emulator | str:
    """The emulator, or why there is none."""
    compiler = shutil.which("g++")
    if compiler is None:
        return "g++ is not installed"
    library = Path(mkdtemp(prefix="condic-emulator-")) / "emulator.so"
    command = [compiler, *FLAGS, str(FOLDER / "cuda_emulator.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    emulator = Emulator(library)
    shutil.rmtree(library.parent)
    return emulator


class DeviceMemory:
    """Allocations between pages that must not be touched. Their contents start as garbage; `free` takes them away."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._mapped: dict[int, tuple[int, int]] = {}  # by the allocation's address: the mapping's, and its size

    def allocate(self, size: int, alignment: int = 16) -> int:
        """The address of `size` new bytes."""
        page = mmap.PAGESIZE
        inner = -(-max(size, 1) // page) * page
        start = self._libc.mmap(
            None, ctypes.c_size_t(inner + 2 * page), mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_size_t(0),
        )  # fmt: skip
        assert start not in (None, ctypes.c_void_p(-1).value)
        ctypes.memset(start + page, 0xA5, inner)
        for border in (start, start + page + inner):
            assert self._libc.mprotect(ctypes.c_void_p(border), ctypes.c_size_t(page), _NO_ACCESS) == 0
        address = start + page + (inner - size) // alignment * alignment
        self._mapped[address] = (start, inner + 2 * page)
        return address

    def free(self, address: int) -> None:
        """Makes an allocation inaccessible, for ever."""
        start, size = self._mapped.pop(address)
        assert self._libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), _NO_ACCESS) == 0

    def free_all(self) -> None:
        """Gives everything back to the system."""
        for start, size in self._mapped.values():
            self._libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(size))
        self._mapped.clear()

    def put(self, array: npt.NDArray[Any], alignment: int = 16) -> int:
        """The address of a copy of an array."""
        address = self.allocate(array.nbytes, alignment)
        view(address, array.shape, array.dtype)[...] = array
        return address

    def zeros(self, size: int) -> int:
        """The address of `size` zero bytes."""
        return self.put(np.zeros(size, np.uint8))


def view(address: int, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Memory at an address as an array."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    if size == 0:
        return np.empty(shape, dtype)
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)
