"""The backend ort-cuda with the CPU's provider in the place of CUDA's: sessions, bindings, errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cuda_emulator import DeviceMemory, Emulator
from fake_driver import FakeDriver

ort_cuda = pytest.importorskip("condic.runtime.backends.ort_cuda", exc_type=ImportError)

from condic.errors import BackendError, DeviceMemoryError  # noqa: E402
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


def test_an_image_of_more_pixels_than_its_kernels_count_runs_by_tiles(
    driver: FakeDriver, bundle: Bundle, codec: Codec, drawing: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_cuda, "_MOST_PIXELS", 1152 * 256)  # a tile of 128 and what is around it
    device, image = Codec(bundle, "ort-cuda"), drawing(130, 1500)
    data = device.encode(image, 20)
    assert driver.counts["pixels_to_tensor"] == 0
    decoded = device.decode(data, latents=True)
    assert decoded.latents_sha256() == codec.decode(data, latents=True).latents_sha256()
    device.close()


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


def test_a_session_that_cannot_be_made_is_an_error_of_ours(
    driver: FakeDriver, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def refuse(*_: object, **options: object) -> None:
        given.update(options)
        raise RuntimeError("CUDA failure 2: out of memory")

    device = Codec(bundle, "ort-cuda")
    monkeypatch.setattr(ort_cuda.onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        device.graphs.load("context_0")
    assert given["enable_fallback"] == 0, "it would go on, on the CPU alone"
    device.close()


def test_libraries_of_wheels_are_loaded_before_the_provider_needs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (
        "cu13/lib/libcublas.so.13",
        "cu13/lib/libcudart.so.13",
        "cudnn/lib/libcudnn.so.9",
        "cu13/lib/libx.so.1",
    ):
        (tmp_path / "nvidia" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nvidia" / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    loaded = []
    monkeypatch.setattr(ort_cuda.ctypes, "CDLL", lambda path: loaded.append(Path(path)))
    ort_cuda._load_libraries.__wrapped__()
    ours = [path.name for path in loaded if tmp_path in path.parents]
    assert ours == ["libcudart.so.13", "libcublas.so.13", "libcudnn.so.9"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [("Failed to allocate memory for requested buffer of size 1", "DeviceMemoryError"), ("anything", "BackendError")],
)
def test_what_the_library_says_becomes_one_line(said: str, kind: str) -> None:
    error = ort_cuda._as_ours(RuntimeError(f"{said}\nand more"))
    assert type(error).__name__ == kind
    assert said in str(error)
    assert "\n" not in str(error)


def test_guarded_graphs_do_without_tf32(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact ones give the same integers with it."""
    given: dict[str, object] = {}

    def session(*_: object, providers: list[tuple[str, dict[str, object]]], **__: object) -> None:
        given.update(providers[0][1])
        raise RuntimeError("enough")

    monkeypatch.setattr(ort_cuda.onnxruntime, "InferenceSession", session)
    for precision, tf32 in (("exact", 1), ("float", 1), ("guarded", 0)):
        graph = replace(bundle.manifest.graphs[0], precision=precision)
        with pytest.raises(BackendError, match="enough"):
            ort_cuda._Sessions(graph, b"").on(5)
        assert (given["use_tf32"], given["user_compute_stream"]) == (tf32, "5")
