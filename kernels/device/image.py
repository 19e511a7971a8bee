"""The module that a driver loads: every kernel of kernels/cuda, compiled when condic was built or when it is needed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from condic.errors import BackendError
from condic.kernels.device.nvrtc import find_nvrtc

OLDEST = (7, 5)
"""The lowest compute capability that the kernels are compiled for (Turing)."""

_KERNELS = Path(__file__).parents[1]
_FATBIN = _KERNELS / "kernels.fatbin"
_OPTIONS = ["-std=c++17", "-fmad=false", f"-I{_KERNELS}", f"-I{_KERNELS / 'cuda'}"]

# NVRTC has no standard library. The sources need no more of it than this.
_STANDARD_HEADERS = {
    "cstddef": "#pragma once\n",
    "cstdint": """#pragma once
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define INT16_MIN (-32768)
""",
}


def device_image(capability: tuple[int, int], cuda: tuple[int, int]) -> bytes:
    """The kernels for a GPU of this compute capability, as `cuModuleLoadData` of a driver for this CUDA takes them.

    A fatbin, if nvcc was there when condic was built: machine code for the usual GPUs, PTX for the others. Otherwise
    NVRTC compiles them now, which takes seconds: to machine code, or to PTX for a GPU that it does not know.

    Raises:
        BackendError: the GPU is too old, or there is neither a fatbin nor NVRTC.
    """
    if capability < OLDEST:
        has, needed = (".".join(map(str, version)) for version in (capability, OLDEST))
        raise BackendError(
            f"this GPU has compute capability {has}; the kernels need {needed} or higher: use a backend that runs on "
            "the CPU (--backend ort)"
        )
    if _FATBIN.exists():
        return _FATBIN.read_bytes()
    return compile_image(capability, cuda)


@lru_cache
def compile_image(capability: tuple[int, int], cuda: tuple[int, int]) -> bytes:
    """The kernels compiled by NVRTC, whether or not there is a fatbin. Raises BackendError."""
    source = (_KERNELS / "cuda" / "kernels.cu").read_bytes()
    return find_nvrtc(cuda[0]).compile(source, capability, _OPTIONS, _STANDARD_HEADERS)
