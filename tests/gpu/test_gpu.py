"""The checks of `run.py` as tests; they need an NVIDIA GPU, and each backend its library (and engines)."""

from __future__ import annotations

from collections.abc import Iterator

import checks
import kernel_checks
import numpy as np
import numpy.typing as npt
import pytest

from condic.errors import BackendError
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.cuda.driver import Driver, open_driver

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    try:
        driver = open_driver()
    except BackendError as error:
        pytest.skip(str(error))
    yield driver
    driver.close()


@pytest.fixture(scope="module", params=["tensorrt", "ort-cuda"])
def device(request: pytest.FixtureRequest, shipped_bundle: Bundle) -> Iterator[Codec]:
    try:
        codec = Codec(shipped_bundle, request.param)
        codec.graphs.load("context_0")
    except BackendError as error:
        if "refused" in str(error) and "no engine" not in str(error):
            raise
        pytest.skip(str(error))
    yield codec
    codec.close()


def test_the_kernels_are_those_of_the_host(driver: Driver, shipped_bundle: Bundle) -> None:
    kernel_checks.check_kernels(driver, shipped_bundle)


def test_every_exact_graph_gives_its_known_answer(device: Codec) -> None:
    assert checks.check_known_answers(device)["known_answers"] == 8


def test_graphs_agree_with_the_cpu(
    device: Codec, shipped_codec: Codec, photographs: dict[str, npt.NDArray[np.uint8]]
) -> None:
    checks.check_graphs(device, shipped_codec, photographs["coffee"])


def test_files_decode_on_either_side(
    device: Codec, shipped_codec: Codec, photographs: dict[str, npt.NDArray[np.uint8]]
) -> None:
    checks.check_cross_decoding(device, shipped_codec, list(photographs.values()))


def test_repetition_changes_nothing(device: Codec, photographs: dict[str, npt.NDArray[np.uint8]]) -> None:
    checks.check_repetition(device, photographs["cat"])
