"""NVRTC, NVIDIA's compiler as a library: the five of its functions that are needed, by ctypes.

It comes with the CUDA toolkit, and as the wheels `nvidia-cuda-nvrtc` (CUDA 13) and `nvidia-cuda-nvrtc-cu12`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from condic.errors import BackendError
from condic.kernels.device.libraries import wheel_libraries

_NAMES = (
    ("nvrtc64_130_0.dll", "nvrtc64_120_0.dll")
    if sys.platform == "win32"
    else ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
)
"""The newest first."""


class Nvrtc:
    """A loaded NVRTC; `major` is the version of its CUDA."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.major = major.value

    def compile(
        self, source: bytes, capability: tuple[int, int], options: Sequence[str], headers: Mapping[str, str]
    ) -> bytes:
        """Compiles C++ to machine code for a compute capability; to PTX if NVRTC is older than it.

        Args:
            source: the program.
            capability: major and minor.
            options: of the compiler.
            headers: by the name in <> of an #include; they need not be files.

        Raises:
            BackendError: with what the compiler says.
        """
        program = ctypes.c_void_p()
        names, texts = (
            (ctypes.c_char_p * len(headers))(*(x.encode() for x in strings))
            for strings in (headers.keys(), headers.values())
        )
        self._check("nvrtcCreateProgram", ctypes.byref(program), source, b"kernels.cu", len(headers), texts, names)
        try:
            known, wanted = self._architectures(), 10 * capability[0] + capability[1]
            kind, get = ("sm", "CUBIN") if wanted in known else ("compute", "PTX")
            architecture = f"--gpu-architecture={kind}_{max((x for x in known if x <= wanted), default=wanted)}"
            given = [option.encode() for option in (architecture, *options)]
            self._check(
                "nvrtcCompileProgram", program, len(given), (ctypes.c_char_p * len(given))(*given), program=program
            )
            return self._get(get, program)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _architectures(self) -> list[int]:
        count = ctypes.c_int()
        self._check("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        architectures = (ctypes.c_int * count.value)()
        self._check("nvrtcGetSupportedArchs", architectures)
        return list(architectures)

    def _get(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._check(f"nvrtcGet{what}", program, content)
        return content.raw

    def _check(self, function: str, *arguments: object, program: ctypes.c_void_p | None = None) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            reason = self._library.nvrtcGetErrorString(code).decode()
            log = " ".join(self._get("ProgramLog", program).decode(errors="replace").split()) if program else ""
            raise BackendError(f"NVRTC cannot compile the CUDA kernels: {function}: {reason} {log.rstrip(chr(0))}")


def find_nvrtc(cuda: int) -> Nvrtc:
    """The newest NVRTC, of a wheel in this environment or of the system, whose code a driver for this CUDA (13) takes.

    Raises BackendError where there is none.
    """
    newer = 0
    for name in _candidates():
        try:
            for builtins in Path(name).parent.glob("libnvrtc-builtins.so.*") if Path(name).is_absolute() else ():
                ctypes.CDLL(str(builtins))  # which NVRTC would otherwise look for where the system has its libraries
            nvrtc = Nvrtc(ctypes.CDLL(name))
        except OSError:
            continue
        if nvrtc.major <= cuda:
            return nvrtc
        newer = nvrtc.major
    if newer:
        raise BackendError(
            f"NVRTC is of CUDA {newer} here, and the driver, of CUDA {cuda}, takes no code of it: install a newer "
            "driver, or the NVRTC of its CUDA (for 12, pip install nvidia-cuda-nvrtc-cu12)"
        )
    raise BackendError(
        "there are no CUDA kernels: condic was built without nvcc, and NVRTC, which could compile them now, is not "
        "installed (pip install nvidia-cuda-nvrtc, or nvidia-cuda-nvrtc-cu12 for CUDA 12)"
    )


def _candidates() -> Iterator[str]:
    for name in _NAMES:
        yield from map(str, wheel_libraries(name))
    yield from _NAMES
