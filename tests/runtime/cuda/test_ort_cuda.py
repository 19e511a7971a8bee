"""The backend ort-cuda with the CPU's provider in the place of CUDA's: sessions, bindings, errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from cuda_emulator import DeviceMemory, Emulator
from fake_driver import FakeDriver

ort_cuda = pytest.importorskip("condic.runtime.backends.ort_cuda", exc_type=ImportError)

from condic.errors import BackendError  # noqa: E402
from condic.runtime.bundle import Bundle  # noqa: E402
from condic.runtime.codec import Codec  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate provider")
Draw = Callable[..., npt.NDArray[np.uint8]]


@pytest.fixture
def driver(emulator: Emulator, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    driver = FakeDriver(emulator, memory)
    driver.eager = True
    monkeypatch.setattr(ort_cuda, "find_libcuda", lambda: None)
    monkeypatch.setattr(ort_cuda, "open_driver", lambda: driver)
    monkeypatch.setattr(ort_cuda, "_PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(ort_cuda, "_DEVICE", "cpu")
    return driver


def test_images_are_the_hosts(driver: FakeDriver, bundle: Bundle, codec: Codec, drawing: Draw) -> None:
    device, images = Codec(bundle, "ort-cuda"), [drawing(70 + 60 * (k == 1), 90) for k in range(3)]
    for image in images:
        data = codec.encode(image, 30)
        assert device.encode(image, 30) == data
        assert np.array_equal(device.decode(data).image, codec.decode(data).image)
    assert list(device.encode_many(images, 30)) == [codec.encode(image, 30) for image in images]
    assert driver.counts["begin_capture"] == 0
    device.close()
    assert driver.left() == {}


def test_without_its_provider_it_says_what_to_install(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cuda, "_PROVIDER", "CUDAExecutionProvider")
    if "CUDAExecutionProvider" in ort_cuda.onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(BackendError, match=r"^this is onnxruntime, not onnxruntime-gpu: .*--backend ort\)$"):
        ort_cuda.OrtCudaBackend(None)


def test_a_provider_that_does_not_load_is_an_error_and_not_a_slow_success(
    driver: FakeDriver, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Codec(bundle, "ort-cuda")
    monkeypatch.setattr(ort_cuda.onnxruntime.InferenceSession, "get_providers", lambda self: [])
    with pytest.raises(BackendError, match="cannot load its CUDA provider"):
        device.graphs.load("context_0")
    device.close()


@pytest.mark.parametrize(
    ("said", "kind"),
    [("Failed to allocate memory for requested buffer of size 1", "DeviceMemoryError"), ("anything", "BackendError")],
)
def test_what_the_library_says_becomes_one_line(said: str, kind: str) -> None:
    error = ort_cuda._as_ours(RuntimeError(f"{said}\nand more"))
    assert type(error).__name__ == kind
    assert said in str(error)
    assert "\n" not in str(error)
