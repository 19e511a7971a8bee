"""Fixtures that tests of several folders share: bundles, codecs on every backend, photographs."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cuda_emulator import DeviceMemory, Emulator, build_emulator
from hypothesis import HealthCheck, settings
from PIL import Image

from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.codec import Codec
from condic.runtime.shipped import find_bundle

Pixels = npt.NDArray[np.uint8]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background; programs under test would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parent / "data"
SMALL_BUNDLE = DATA / "dcic-sgp-t.condic"

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@dataclass(frozen=True)
class Setting:
    """A backend with its options, and the library it needs."""

    backend: str
    options: BackendOptions
    library: str
    float32: bool = True


SETTINGS = {
    "torch": Setting("torch", BackendOptions(), "torch"),
    "ort-1-thread": Setting("ort", BackendOptions(threads=1), "onnxruntime"),
    "ort-2-threads": Setting("ort", BackendOptions(threads=2), "onnxruntime"),
    "ort-as-written": Setting("ort", BackendOptions(threads=1, optimise=False), "onnxruntime"),
    "openvino": Setting("openvino", BackendOptions(), "openvino", float32=False),
}
"""Ways to run a bundle that must all give the same integers. OpenVINO runs float graphs in bfloat16 where it can."""

PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", (0, 120, 190, 420)),
    "coffee": ("coffee.png", (60, 150, 201, 407)),
    "cat": ("chelsea.png", (70, 100, 273, 229)),
}
"""File in scikit-image's wheel, and the crop: top, left, bottom, right. No side is a multiple of 128."""


def available(names: dict[str, Setting] = SETTINGS) -> list[str]:
    """The settings whose library is installed."""
    return [name for name, setting in names.items() if importlib.util.find_spec(setting.library)]


@lru_cache
def _bundle(preset: str) -> Bundle:
    small = SMALL_BUNDLE if preset == "t" else DATA / f"{preset}.condic"
    return read_bundle(small if small.exists() else find_bundle(f"dcic-sgp-{preset}"))


@lru_cache
def _codec(preset: str, setting: str) -> Codec:
    return Codec(_bundle(preset), SETTINGS[setting].backend, SETTINGS[setting].options)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """What the tests ship: bundle and weights of preset t, golden files."""
    return DATA


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    """The bundle of preset t."""
    return SMALL_BUNDLE


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundle of preset t, read."""
    return _bundle("t")


@pytest.fixture(scope="session")
def shipped_bundle() -> Bundle:
    """The bundle that an installation comes with."""
    return _bundle("s")


@pytest.fixture(scope="session")
def open_setting() -> Callable[[str, str], Codec]:
    """The codec of a preset (t or s), or of a bundle in tests/data, in one of `SETTINGS`, opened once.

    Skips where the library is not installed.
    """

    def open_codec(preset: str, setting: str) -> Codec:
        pytest.importorskip(SETTINGS[setting].library)
        return _codec(preset, setting)

    return open_codec


@pytest.fixture(scope="session")
def codec(open_setting: Callable[[str, str], Codec]) -> Codec:
    """Preset t on the default backend with one thread."""
    return open_setting("t", "ort-1-thread")


@pytest.fixture(scope="session")
def shipped_codec(open_setting: Callable[[str, str], Codec]) -> Codec:
    """Preset s on the default backend."""
    return open_setting("s", "ort-2-threads")


@pytest.fixture(scope="session")
def available_settings() -> dict[str, Setting]:
    """The entries of `SETTINGS` whose library is installed."""
    return {name: SETTINGS[name] for name in available()}


@pytest.fixture(scope="session")
def photographs() -> dict[str, Pixels]:
    """Three photographs, uint8 [H, W, 3]."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image, whose wheel has the photographs, is not installed")
    folder = Path(package.origin).parent / "data"
    result = {}
    for name, (file, (top, left, bottom, right)) in PHOTOGRAPHS.items():
        with Image.open(folder / file) as image:
            result[name] = np.asarray(image.convert("RGB"))[top:bottom, left:right].copy()
    return result


@pytest.fixture(scope="session")
def drawing() -> Callable[..., Pixels]:
    """`drawing(height, width, channels)`: an image with edges, gradients and noise, always the same."""

    def draw(height: int, width: int, channels: int = 3) -> Pixels:
        rows, columns = np.mgrid[:height, :width]
        generator = np.random.default_rng([height, width, channels])
        planes = [
            128 + 70 * np.sin((rows * (k + 2) + columns * 3) / 29) + 40 * ((rows // 13 + columns // (11 + k)) % 2)
            for k in range(channels)
        ]
        noisy = np.stack(planes, axis=2) + generator.normal(0, 3, (height, width, channels))
        return noisy.clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """What runs launches of the CUDA kernels on this machine's CPU."""
    emulator = build_emulator()
    if isinstance(emulator, str):
        pytest.skip(f"the CUDA kernels cannot be emulated: {emulator}")
    return emulator


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceMemory]:
    """The memory of an emulated GPU, fenced."""
    monkeypatch.setattr("condic.runtime.cuda.driver._DELAY_BYTES", 1024)  # nothing is faster than its host here
    memory = DeviceMemory()
    yield memory
    memory.free_all()
