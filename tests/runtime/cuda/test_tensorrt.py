"""The backend tensorrt with stand-ins for its library: engines found, tested, run with memory that is the caller's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checks import measure_layers
from cuda_emulator import DeviceMemory, Emulator
from fake_driver import FakeDriver

from condic.errors import BackendError, CondicWarning, DeviceMemoryError, SizeError
from condic.runtime.backends import tensorrt
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.engine_cache import Engine, EngineKey, Flavour, Profile, Target, write_engine
from condic.runtime.tensorrt_library import adopt

from .fake_tensorrt import fake_module

Draw = Callable[..., npt.NDArray[np.uint8]]
SMALL, LARGE = Profile((128, 128), (128, 256), (128, 256)), Profile((128, 128), (256, 256), (512, 512))


@dataclass
class Library:
    """A TensorRT that is none, a driver, and engines of all graphs."""

    api: Any
    driver: FakeDriver
    folder: Path
    bundle: Bundle
    flavour: Flavour

    def write(self, plan: bytes | None = None, profiles: tuple[Profile, ...] = (SMALL, LARGE)) -> None:
        target = Target("fake GPU", "8.7", self.flavour, self.api.__version__)
        for graph in self.bundle.manifest.graphs:
            for profile in profiles:
                precision = "fp32" if graph.precision == "float" else graph.precision
                key = EngineKey(self.bundle.manifest.bundle_id, graph.role, precision, target, profile)
                write_engine(self.folder, Engine(key, plan or graph.role.encode(), {"build_seconds": 0.5}))


@pytest.fixture(params=["8.6.1", "10.3.0", "1.7.1"])
def library(
    request: pytest.FixtureRequest, emulator: Emulator, memory: DeviceMemory, bundle: Bundle, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Library]:  # fmt: skip
    pytest.importorskip("onnxruntime")
    driver = FakeDriver(emulator, memory)
    api, flavour = (
        fake_module(request.param, driver, bundle),
        "tensorrt-rtx" if request.param == "1.7.1" else "tensorrt",
    )
    monkeypatch.setenv("CONDIC_ENGINES", str(tmp_path))
    monkeypatch.setattr(tensorrt, "find_libcuda", lambda: None)
    monkeypatch.setattr(tensorrt, "find_tensorrt", lambda: adopt(api, flavour))
    monkeypatch.setattr(tensorrt, "open_driver", lambda: driver)
    yield Library(api, driver, tmp_path, bundle, flavour)
    assert driver.left() == {}


def test_images_of_two_profiles_are_the_hosts(library: Library, bundle: Bundle, codec: Codec, drawing: Draw) -> None:
    library.write()
    device = Codec(bundle, "tensorrt")
    name = "TensorRT-RTX" if library.flavour == "tensorrt-rtx" else "TensorRT"
    assert device.backend == f"tensorrt ({name} {library.api.__version__}, fake GPU (sm_87), CUDA 12.6)"
    for shape in ((100, 200), (100, 200), (300, 200), (100, 200)):
        image = drawing(*shape)
        data = codec.encode(image, 30)
        assert device.encode(image, 30) == data
        assert np.array_equal(device.decode(data).image, codec.decode(data).image)
    profiles = 2
    assert library.api.plans.count(b"context_1") == profiles
    assert device.graphs.backend.build_seconds == 0.5 * profiles * len(bundle.manifest.graphs)
    device.close()


def test_layers_are_measured_for_every_graph(library: Library, bundle: Bundle, drawing: Draw) -> None:
    library.write()
    device = Codec(bundle, "tensorrt")
    facts = measure_layers(device, drawing(90, 100), most=1)
    assert set(facts) == {graph.role for graph in bundle.manifest.graphs}
    assert facts["synthesis"] == {"us": 1000, "layers": 2, "longest": {"synthesis: first": 500}}
    device.close()


def test_threads_have_contexts_of_their_own(library: Library, bundle: Bundle, codec: Codec, drawing: Draw) -> None:
    library.write()
    device, images = Codec(bundle, "tensorrt"), [drawing(90, 100 + k) for k in range(5)]
    begun = [device.begin_encoding(image, 20) for image in images[:3]]
    assert [finish() for finish in begun] == [codec.encode(image, 20) for image in images[:3]]
    assert list(device.encode_many(images, 20)) == [codec.encode(image, 20) for image in images]
    device.close()


def test_a_damaged_engine_of_large_images_leaves_them_to_tiles(
    library: Library, bundle: Bundle, codec: Codec, drawing: Draw
) -> None:
    small, large = (Profile((128, 128), largest, largest) for largest in ((128, 1024), (256, 2048)))
    library.write(profiles=(small, large))
    damaged = [path for path in library.folder.rglob("*") if path.is_file() and b"2048" in path.read_bytes()[:4000]]
    assert len(damaged) == len(bundle.manifest.graphs)
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    device, image = Codec(bundle, "tensorrt"), drawing(100, 2000)
    data = device.encode(image, 20)
    latents = [each.decode(data, latents=True).latents_sha256() for each in (codec, device)]
    assert latents[0] == latents[1]
    device.close()


@pytest.mark.parametrize(("what", "message"), [
    ("none", r"no engine of prior_context_1 for 128x256 .*none in .*condic-export --engines.*, or use --backend ort"),
    ("foreign", r"rejects its engine of prior_context_1 \(Serialization assertion failed\); build it again"),
    ("wrong", r"tensorrt refused: graph prior_context_1 does not give its known answer"),
    ("failing", r"fails in graph prior_context_1 \(out of luck\).*--backend ort"),
])  # fmt: skip
def test_engines_that_will_not_do_are_one_clear_error(
    library: Library, bundle: Bundle, drawing: Draw, what: str, message: str
) -> None:
    if what != "none":
        library.write(b"foreign" if what == "foreign" else None)
    library.api.error, library.api.failing = int(what == "wrong"), "out of luck" if what == "failing" else ""
    device = Codec(bundle, "tensorrt")
    with pytest.raises(BackendError, match=message) as caught:
        device.graphs.load("prior_context_1")
    assert "\n" not in str(caught.value)
    device.close()


@pytest.mark.parametrize("said", [
    "Cuda Runtime (out of memory)", "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory (no further information)",
])  # fmt: skip
def test_memory_that_tensorrt_lacks_is_told_apart(library: Library, bundle: Bundle, said: str) -> None:
    library.write()
    library.api.failing = said
    device = Codec(bundle, "tensorrt")
    with pytest.raises(DeviceMemoryError, match=r"context_1 \(.*[Oo]ut ?[Oo]f ?[Mm]emory.*\); the CPU path"):
        device.graphs.load("prior_context_1")
    device.close()


def test_scratch_memory_that_tensorrt_refuses_is_told(library: Library, bundle: Bundle) -> None:
    """But of 8.6, which went on with memory of its own on an H200."""
    library.write()
    library.api.alignment = 2**40
    device = Codec(bundle, "tensorrt")
    if library.api.__version__.startswith("8."):
        with pytest.warns(
            CondicWarning, match="takes memory of its own for each graph: setDeviceMemory: memory must be"
        ):
            device.graphs.load("prior_context_1")
    else:
        with pytest.raises(
            BackendError, match=r"refuses its scratch memory in graph prior_context_1 \(setDeviceMemory"
        ):
            device.graphs.load("prior_context_1")
    device.close()


def test_kernels_that_were_compiled_are_there_in_the_next_process(
    library: Library, bundle: Bundle, drawing: Draw
) -> None:
    library.write()
    roles = {graph.role for graph in bundle.manifest.graphs}
    for again in (False, True):
        library.api.compiled.clear()
        device = Codec(bundle, "tensorrt")
        device.decode(device.encode(drawing(90, 100), 20))
        device.close()
        compiles = library.flavour == "tensorrt-rtx" and not again
        assert set(library.api.compiled) == (roles if compiles else set())
        assert len(library.api.compiled) == len(roles) * compiles
    assert len(list((library.folder / "kernels").glob("*"))) == (library.flavour == "tensorrt-rtx")


def test_an_image_beyond_every_profile_runs_by_tiles_or_says_which_engines_to_build(
    library: Library, bundle: Bundle, codec: Codec, drawing: Draw
) -> None:
    library.write(profiles=(SMALL,))
    device, image = Codec(bundle, "tensorrt"), drawing(100, 2000)
    with pytest.raises(SizeError, match=r"2048x128 cannot run whole, nor by tiles of 128 .*it takes.*--shapes"):
        device.encode(image, 20)
    library.write(profiles=(Profile((128, 128), (128, 1024), (128, 1024)),))
    device.close()
    device = Codec(bundle, "tensorrt")
    data = device.encode(image, 20)
    assert codec.decode(data, latents=True).latents_sha256() == device.decode(data, latents=True).latents_sha256()
    device.close()


@pytest.mark.parametrize("line", (Path(__file__).parents[2] / "data/tensorrt_apis.jsonl").read_text().splitlines())
def test_every_recorded_version_has_the_members_that_are_used(line: str) -> None:
    api = json.loads(line)
    engine, old = set(api["classes"]["ICudaEngine"]), api["version"].startswith("8.")
    assert {"num_io_tensors", "get_tensor_name", "get_tensor_dtype"} <= engine
    own_memory = {"create_execution_context_without_device_memory", "device_memory_size"}
    assert (own_memory if old else {"create_execution_context"}) <= engine
    assert {"deserialize_cuda_engine", "engine_host_code_allowed"} <= set(api["classes"]["Runtime"])
    if api["module"].startswith("tensorrt_rtx"):
        assert {"create_runtime_config"} <= engine
        assert {"create_runtime_cache", "set_runtime_cache"} <= set(api["classes"]["IRuntimeConfig"])
        assert "EAGER" in api["enums"]["DynamicShapesKernelSpecializationStrategy"]
        assert "USER_MANAGED" in api["enums"]["ExecutionContextAllocationStrategy"]
        assert {
            "set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy"
        } <= set(api["classes"]["IRuntimeConfig"])  # fmt: skip
        assert {"update_device_memory_size_for_shapes", "set_device_memory"} <= set(api["classes"]["IExecutionContext"])
    assert "FLOAT" in api["enums"]["DataType"]
    assert "profiler" in api["classes"]["IExecutionContext"]
