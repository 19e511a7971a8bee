"""Codecs on a GPU that is none: kernels run by the emulator, graphs by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cuda_emulator import DeviceMemory, Emulator
from fake_backend import FakeBackend, registered
from fake_driver import FakeDriver

from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec


class Bench:
    """A fake device, a backend on it, and codecs that use them."""

    def __init__(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver = driver
        self.backend = registered(FakeBackend(driver), monkeypatch)

    def codec(self, bundle: Bundle, *, host_coder: bool = False) -> Codec:
        """A codec on the fake device."""
        return Codec(bundle, "fake", BackendOptions(host_coder=host_coder))


@pytest.fixture
def bench(emulator: Emulator, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A fake device with all the memory in the world."""
    pytest.importorskip("onnxruntime")
    return Bench(FakeDriver(emulator, memory), monkeypatch)


@pytest.fixture(params=["device", "host"])
def coder(request: pytest.FixtureRequest) -> str:
    """Who does the entropy coding."""
    return str(request.param)


@pytest.fixture
def device_codec(bench: Bench, bundle: Bundle, coder: str) -> Iterator[Codec]:
    """Preset t on the fake device; nothing of it may be left at the end."""
    codec = bench.codec(bundle, host_coder=coder == "host")
    yield codec
    codec.close()
    assert bench.driver.left() == {}
    assert bench.backend.open == 0
