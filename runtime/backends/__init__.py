"""Backends behind one small interface: load a graph, run it on arrays of the host, or on a device.

A backend registers itself in the entry-point group `condic.backends`; nothing here imports the libraries behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol

import numpy as np

from condic.errors import BackendError, CondicError, InputError, OutOfMemoryError, first_line, install_hint, is_whole
from condic.runtime.arrays import Tensor
from condic.runtime.bundle import Bundle
from condic.runtime.forks import let_forks_end, loading, running
from condic.runtime.known_answer import check_known_answer
from condic.runtime.manifest import Graph

if TYPE_CHECKING:
    from condic.runtime.cuda.driver import Driver

Runner = Callable[[Sequence[Tensor]], list[Tensor]]
"""Runs a graph on its inputs, float32 in the order of `Graph.inputs`; gives its outputs, which are the caller's.

Safe to call from threads.
"""

_MOST_THREADS = 256

PREFERENCE = ("ort", "openvino", "torch")
"""What `auto` tries, in this order: by the time to the first picture.

OpenVINO takes longer to load a model and less for each picture that follows (docs/python.md has figures). Those that
need a GPU are not among them until they have been measured on one (docs/gpu.md): ask for them by name.
"""


@dataclass(frozen=True)
class BackendOptions:
    """`threads` 0 lets the library choose; `optimise` False asks it to run the graph as it is written.

    `host_coder` leaves the entropy coding to the host where a GPU could do it. Raises InputError for `threads` that are
    no integer from 0 to 256.
    """

    threads: int = 0
    optimise: bool = True
    host_coder: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.threads) or not 0 <= self.threads <= _MOST_THREADS:
            raise InputError(f"threads {self.threads!r}: give an integer from 0 to {_MOST_THREADS}")


class Backend(Protocol):
    """A library that runs ONNX graphs. The constructor raises BackendError where the library is missing.

    One with a `driver` runs them on its device: what it loads are `DeviceGraph`s (`condic.runtime.cuda.graph`).
    """

    name: str

    def __init__(self, options: BackendOptions) -> None: ...

    @property
    def driver(self) -> Driver | None:
        """The device that graphs run on; None where they run on the host."""
        ...

    def describe(self) -> str:
        """Library, version and device, for people."""
        ...

    def load(self, graph: Graph, bundle: Bundle) -> Runner:
        """Prepares a graph of a bundle; `exact` and `guarded` ones must run in float32."""
        ...


class LoadedGraphs:
    """The graphs of a bundle on one backend, each loaded when first run; exact ones pass their known-answer test then.

    Safe to share between threads.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self._bundle, self.backend = bundle, backend
        self._runners: dict[str, Runner] = {}
        self._lock: AbstractContextManager[object] = loading()
        if backend.driver is not None:
            from condic.runtime.cuda.graph import SETTING_UP

            self._lock = SETTING_UP  # programs are built under it, and load what they run
        else:
            let_forks_end(self)

    def load(self, role: str) -> Runner:
        """The graph's runner. Raises BackendError if the backend cannot load it or fails its known-answer test."""
        if (runner := self._runners.get(role)) is not None:
            return runner
        with self._lock:
            if role not in self._runners:
                self._runners[role] = self._load(self._bundle.manifest.graph(role))
            return self._runners[role]

    def run(self, role: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of a graph. Raises OutOfMemoryError, BackendError for infinity and NaN, and what `load` raises."""
        outputs = self._call(self.load(role), role, inputs)
        if self._bundle.manifest.graph(role).precision != "exact" and not all(map(_is_finite, outputs)):
            raise not_finite(f"graph {role}", self.backend.name)
        return outputs

    def close(self) -> None:
        """Gives everything on a device back; no graph runs any more."""
        if (driver := self.backend.driver) is None:
            return
        from condic.runtime.cuda.graph import device_graph

        with self._lock:
            while self._runners:
                device_graph(self._runners.popitem()[1]).close()
        driver.close()

    def _call(self, runner: Runner, role: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        try:
            with self._running():
                return runner(inputs)
        except (CondicError, MemoryError):
            raise
        except Exception as error:
            lacks_memory = "alloc" in str(error)  # each library has its own words and kind of error
            kind, what = (OutOfMemoryError, "has no memory to") if lacks_memory else (BackendError, "cannot")
            raise kind(f"backend {self.backend.name} {what} run graph {role} ({first_line(error)})") from error

    def _running(self) -> AbstractContextManager[None]:
        """No process is forked within; with a device none should be anyway, whose graphs wait for other locks."""
        return running() if self.backend.driver is None else nullcontext()

    def _load(self, graph: Graph) -> Runner:
        backend = self.backend
        try:
            with self._running():
                runner = backend.load(graph, self._bundle)
        except Exception as error:
            raise BackendError(f"backend {backend.name} cannot load graph {graph.role}: {first_line(error)}") from error
        if graph.precision == "exact":
            check_known_answer(self._bundle, graph, partial(self._call, runner, graph.role), backend.name)
        return runner


def not_finite(what: str, backend: str) -> BackendError:
    """The error about a graph's infinities and NaN, which would be a damaged image in a file that is whole."""
    return BackendError(
        f"{what} gives infinity or NaN on backend {backend}, as half precision does where numbers grow too large; "
        "use a bundle that was exported without --fp16, or another backend"
    )


def _is_finite(values: Tensor) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())  # the sum is several times as fast


def backend_names() -> list[str]:
    """All registered backends, preferred ones first."""
    found = _registered()
    return [n for n in PREFERENCE if n in found] + sorted(found.keys() - set(PREFERENCE))


def open_graphs(bundle: Bundle, name: str = "auto", options: BackendOptions | None = None) -> LoadedGraphs:
    """A bundle's graphs on the backend with a name; each loads when first run.

    `auto` is the first of `PREFERENCE` that is installed, loads every graph that files depend on and passes all their
    known-answer tests. Raises BackendError.
    """
    if name != "auto":
        return LoadedGraphs(bundle, open_backend(name, options))
    reasons = []
    for candidate in PREFERENCE:
        try:
            graphs = LoadedGraphs(bundle, open_backend(candidate, options))
            for graph in bundle.manifest.graphs:
                if graph.precision != "float":
                    graphs.load(graph.role)
            return graphs
        except BackendError as error:
            reasons.append(str(error))
    raise BackendError("no backend works here: " + "; ".join(reasons))


def open_backend(name: str, options: BackendOptions | None = None) -> Backend:
    """The backend with a name. Raises BackendError."""
    if name not in _registered():
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(backend_names())}")
    try:
        backend: Backend = _registered()[name].load()(options or BackendOptions())
    except ImportError as error:
        raise BackendError(f"backend {name} is not installed ({error}); {_install_hint(name)}") from error
    except BackendError as error:
        raise BackendError(f"backend {name} does not work here: {error}") from error
    except Exception as error:  # half an installation fails in any way
        raise BackendError(f"backend {name} is installed and does not load ({error}); install it again") from error
    return backend


@cache
def _registered() -> dict[str, EntryPoint]:
    found = {point.name: point for point in entry_points(group="condic.backends")}
    if not found:
        raise BackendError(
            "no backend is known: condic's metadata (the folder condic-*.dist-info) is not where condic is; install it "
            "with pip, or copy that folder too"
        )
    return found


def _install_hint(name: str) -> str:
    extra = {"ort": "cpu", "openvino": "openvino", "torch": "export", "ort-cuda": "cuda"}
    return install_hint(extra[name]) if name in extra else "install its library"
