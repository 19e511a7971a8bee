"""The GPU that engines are built for, asked of its driver without starting CUDA's runtime."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from condic.errors import BackendError
from condic.runtime.cuda.driver import find_libcuda

_NAME_LENGTH = 256
_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Gpu:
    """A GPU's name as its driver has it, and its compute capability ("8.7")."""

    name: str
    capability: str


def first_gpu() -> Gpu | None:
    """The first GPU, or None: without a driver, or with none that it can use."""
    try:
        cuda = find_libcuda()
    except BackendError:
        return None
    device, major, minor = (ctypes.c_int() for _ in range(3))
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, _NAME_LENGTH, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else Gpu(name.value.decode(), f"{major.value}.{minor.value}")
