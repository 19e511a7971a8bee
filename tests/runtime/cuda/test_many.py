"""Many images on a device: several workspaces, the host's bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from condic.runtime.codec import Codec
from condic.runtime.cuda.pipeline import WORKSPACES

from .conftest import Bench


def test_many_images_on_a_device_are_those_of_the_host(
    bench: Bench, device_codec: Codec, codec: Codec, drawing: Callable[..., npt.NDArray[np.uint8]]
) -> None:
    images = [drawing(40 + 8 * (k % 3), 60) for k in range(7)]
    files = list(device_codec.encode_many(iter(images), 25))
    assert files == [codec.encode(image, 25) for image in images]
    for decoded, file in zip(device_codec.decode_many(files), files, strict=True):
        assert np.array_equal(decoded.image, codec.decode(file).image)
        assert decoded.latents == {}
    of_known_answers = sum(graph.precision == "exact" for graph in codec.bundle.manifest.graphs)
    assert bench.driver.left()["streams"] - of_known_answers > 1, "several images were there at once"


def test_all_workspaces_decode_at_a_time(
    device_codec: Codec, drawing: Callable[..., npt.NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, device = device_codec.encode(drawing(40, 60), 25), device_codec._device
    assert device is not None
    decode, together = device.decode, threading.Barrier(WORKSPACES)

    def wait(*given: Any, **options: Any) -> Any:
        together.wait(60)
        return decode(*given, **options)

    monkeypatch.setattr(device, "decode", wait)
    assert len(list(device_codec.decode_many([data] * WORKSPACES))) == WORKSPACES
