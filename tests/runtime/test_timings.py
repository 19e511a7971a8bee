"""Stages of encoding and decoding: all of them are there, and together they take no longer than the whole."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from condic.runtime.codec import Codec
from condic.runtime.timings import BETWEEN_GRAPHS, Timings


def test_stages_are_the_graphs_and_what_lies_between_them(codec: Codec, drawing: Callable[..., np.ndarray]):
    encode, decode = Timings(), Timings()
    start = time.perf_counter()
    data = codec.encode(drawing(200, 300), 32, encode)
    between = time.perf_counter()
    codec.decode(data, decode)
    end = time.perf_counter()
    roles = {graph.role for graph in codec.bundle.manifest.graphs}
    assert encode.seconds.keys() - roles == set(BETWEEN_GRAPHS)
    assert decode.seconds.keys() - roles == set(BETWEEN_GRAPHS)
    assert {"analysis", "context_0"} <= encode.seconds.keys()
    assert {"synthesis", "context_0"} <= decode.seconds.keys()
    assert 0 < sum(encode.seconds.values()) < between - start
    assert 0 < sum(decode.seconds.values()) < end - between


def test_a_stage_that_fails_is_counted_too():
    timings = Timings()
    try:
        with timings.stage("graph"):
            raise ValueError
    except ValueError:
        pass
    assert timings.seconds["graph"] > 0
