"""What a graph gives that is no number ends in an error, not in a file or picture of garbage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from condic.errors import BackendError
from condic.runtime.bundle import read_bundle
from condic.runtime.codec import Codec

Tensor = npt.NDArray[np.float32]


def spoil(codec: Codec, role: str, value: float) -> None:
    """Makes a graph give one such value, in the middle of its last output."""
    run = codec.graphs.load(role)

    def spoilt(inputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = [x.copy() for x in run(inputs)]
        outputs[-1].flat[outputs[-1].size // 2] = value
        return outputs

    codec.graphs._runners[role] = spoilt


@pytest.fixture(params=["dcic-sgp-t", "cic-sr-t"])
def fresh(request: pytest.FixtureRequest, data_folder: Path) -> Codec:
    """A codec of either kind that a test may spoil."""
    pytest.importorskip("onnxruntime")
    return Codec(read_bundle(data_folder / f"{request.param}.condic"), "ort")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_graph_that_is_not_exact_gives_infinity_or_nan_unseen(
    fresh: Codec, photographs: dict[str, npt.NDArray[np.uint8]], value: float
) -> None:
    image = photographs["cat"][:100, :120]
    data = fresh.encode(image, 20)

    def everything() -> bytes:
        coded = fresh.encode(image, 20)
        fresh.decode(data)
        fresh.preview(data)
        return coded

    for graph in fresh.bundle.manifest.graphs:
        if graph.precision == "exact":
            continue
        run = fresh.graphs.load(graph.role)
        spoil(fresh, graph.role, value)
        with pytest.raises(BackendError, match=rf"^graph {graph.role} gives infinity or NaN on backend ort, .*--fp16"):
            everything()
        fresh.graphs._runners[graph.role] = run
    assert everything() == data


def test_large_numbers_are_numbers_whatever_their_sum_is(fresh: Codec) -> None:
    graph = next(graph for graph in fresh.bundle.manifest.graphs if graph.precision != "exact")
    fresh.graphs._runners[graph.role] = lambda inputs: list(inputs)
    with np.errstate(all="raise"):
        (same,) = fresh.graphs.run(graph.role, [np.full((1, 3, 8, 8), 3e38, np.float32)])
    assert np.all(same == np.float32(3e38))
