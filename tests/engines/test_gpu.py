"""The GPU is asked of the driver, and where there is none, nothing breaks."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from condic.engines.gpu import Gpu, first_gpu


def driver(**results: int) -> Any:
    """A libcuda with one Orin; `results` are error codes by function."""

    def name_of(buffer: Any, size: int, device: Any) -> int:
        buffer.value = b"Orin"
        return results.get("cuDeviceGetName", 0)

    def attribute(target: Any, attribute: int, device: Any) -> int:
        target._obj.value = {75: 8, 76: 7}[attribute]
        return results.get("cuDeviceGetAttribute", 0)

    return SimpleNamespace(
        cuInit=lambda flags: results.get("cuInit", 0),
        cuDeviceGet=lambda device, k: results.get("cuDeviceGet", 0),
        cuDeviceGetName=name_of,
        cuDeviceGetAttribute=attribute,
    )


def test_name_and_capability_are_the_driver_s(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver())
    assert first_gpu() == Gpu("Orin", "8.7")


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"])
def test_a_driver_without_a_gpu_is_no_gpu(monkeypatch: pytest.MonkeyPatch, function: str):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver(**{function: 100}))
    assert first_gpu() is None


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert first_gpu() is None
