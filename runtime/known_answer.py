"""Known-answer tests: a backend whose integers are not everybody's integers is refused before it touches a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from condic.errors import BackendError, DeviceLostError, OutOfMemoryError, first_line
from condic.runtime.arrays import Tensor
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph


def known_inputs(bundle: Bundle, graph: Graph) -> list[Tensor]:
    """The stored inputs of an exact graph's test, as float32."""
    return [bundle.tables[f"known.{graph.role}.{x.name}"].astype(np.float32) for x in graph.inputs]


def answer_of(outputs: Sequence[Tensor]) -> str:
    """SHA-256 over the outputs as little-endian int32; values that are no integers of that range give another hash."""
    digest = hashlib.sha256()
    for x in outputs:
        with np.errstate(invalid="ignore"):
            integers = x.astype("<i4")
        digest.update(integers.tobytes() if np.array_equal(integers, x) else np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


def check_known_answer(
    bundle: Bundle, graph: Graph, run: Callable[[Sequence[Tensor]], list[Tensor]], backend: str
) -> None:
    """Raises BackendError, naming the backend, if an exact graph does not give its known answer."""
    try:
        outputs = run(known_inputs(bundle, graph))
    except (DeviceLostError, OutOfMemoryError):  # which say nothing of the graph
        raise
    except Exception as error:
        raise BackendError(
            f"backend {backend} refused: graph {graph.role} does not run on its known inputs ({first_line(error)})"
        ) from error
    if answer_of(outputs) != graph.known_answer:
        raise BackendError(
            f"backend {backend} refused: graph {graph.role} does not give its known answer, so files would not decode "
            "elsewhere; use another backend (condic-run doctor lists them)"
        )
