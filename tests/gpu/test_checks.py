"""The checks themselves, on a fake device: they pass where all is well, and say what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import checks
import kernel_checks
import numpy as np
import numpy.typing as npt
import pytest
from bench import CheckError
from cuda_emulator import DeviceMemory, Emulator
from fake_backend import FakeBackend, registered
from fake_driver import FakeDriver

from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def backend(emulator: Emulator, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    pytest.importorskip("onnxruntime")
    return registered(FakeBackend(FakeDriver(emulator, memory)), monkeypatch)


@pytest.fixture
def device(backend: FakeBackend, bundle: Bundle) -> Iterator[Codec]:
    codec = Codec(bundle, "fake")
    yield codec
    codec.close()
    assert backend.driver.left() == {}


def test_the_kernels_pass_and_are_measured(
    backend: FakeBackend, bundle: Bundle, codec: Codec, drawing: Callable[..., Pixels]
) -> None:
    assert kernel_checks.check_kernels(backend.driver, bundle, (4, 30)) == {"chunks": 6}
    assert kernel_checks.measure_kernels(backend.driver, 100, 128, runs=2)["elements"] == 192 * 8 * 8 // 4
    (*_, main) = codec.host.quantise(drawing(140, 130), 40).latents
    facts = kernel_checks.measure_coder(backend.driver, bundle, main.chunks, runs=2)
    assert facts["symbols"] == sum(len(symbols) for symbols, _ in main.chunks)
    assert (facts["lanes"], facts["bytes"]) == (1, len(main.section(codec._entropy)) - 4 * len(main.chunks))
    assert backend.driver.left() == {}


def test_graphs_that_differ_are_named(device: Codec, codec: Codec, drawing: Callable[..., Pixels]) -> None:
    run = device.graphs.run

    def wrong(role: str, inputs: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
        outputs = run(role, inputs)
        if role == "context_1":
            outputs[0][0, 0, 0, 0] += 1
        return outputs

    device.graphs.run = wrong  # type: ignore[method-assign, assignment]
    with pytest.raises(CheckError, match="exact graph context_1 differs"):
        checks.check_graphs(device, codec, drawing(60, 130))


def test_pictures_that_are_too_far_apart_are_refused(
    device: Codec, codec: Codec, drawing: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.check_cross_decoding(device, codec, [drawing(60, 130)])["files_equal_to_the_cpus"] == 3
    monkeypatch.setattr(checks, "CLOSE_PSNR", 1000.0)
    with pytest.raises(CheckError, match=r"130x60 at level 0, written by the GPU: \d+\.\d dB"):
        checks.check_cross_decoding(device, codec, [drawing(60, 130)])
