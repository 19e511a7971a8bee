"""A backend that computes other integers than everybody else is refused before it touches a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from condic.errors import BackendError
from condic.runtime import backends
from condic.runtime.arrays import Tensor
from condic.runtime.backends import Backend, BackendOptions, LoadedGraphs, Runner, open_backend
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec
from condic.runtime.known_answer import answer_of, known_inputs
from condic.runtime.manifest import Graph

EXACT = ["prior_context_1", "prior_context_2", "prior_context_3", "hyper_synthesis"] + [
    f"context_{k}" for k in range(4)
]


class Spoiling:
    """A backend that changes the outputs of another one."""

    name = "spoiling"
    driver = None

    def __init__(self, inner: Backend, spoil: Callable[[Tensor], None]) -> None:
        self._inner, self._spoil = inner, spoil

    def describe(self) -> str:
        return "wrong on purpose"

    def load(self, graph: Graph, bundle: Bundle) -> Runner:
        runner = self._inner.load(graph, bundle)

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            outputs = [np.array(x) for x in runner(inputs)]
            for x in outputs:
                self._spoil(x)
            return outputs

        return run


@pytest.fixture(scope="module")
def ort() -> Backend:
    pytest.importorskip("onnxruntime")
    return open_backend("ort", BackendOptions(threads=1))


def with_answer(bundle: Bundle, role: str, answer: str) -> Bundle:
    graphs = tuple(replace(g, known_answer=answer) if g.role == role else g for g in bundle.manifest.graphs)
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))


def off_by_one(x: Tensor) -> None:
    x[0, -1, 0, 0] += 1


def half_off(x: Tensor) -> None:
    x[0, 0, 0, 0] += 0.5


def not_a_number(x: Tensor) -> None:
    x[0, 0, 0, 0] = np.nan


def swapped(x: Tensor) -> None:
    x[0, :, 0, 0] = x[0, ::-1, 0, 0]


def test_the_bundle_has_a_known_answer_for_every_exact_graph(bundle: Bundle, shipped_bundle: Bundle) -> None:
    for manifest in (bundle.manifest, shipped_bundle.manifest):
        assert sorted(g.role for g in manifest.graphs if g.precision == "exact") == sorted(EXACT)
        for graph in manifest.graphs:
            assert (graph.known_answer is not None) == (graph.precision == "exact")


def test_an_honest_backend_loads_every_graph(bundle: Bundle, ort: Backend) -> None:
    graphs = LoadedGraphs(bundle, Spoiling(ort, lambda x: None))
    for graph in bundle.manifest.graphs:
        graphs.load(graph.role)


@pytest.mark.parametrize("spoil", [off_by_one, half_off, not_a_number, swapped])
@pytest.mark.parametrize("role", EXACT)
def test_a_backend_that_is_wrong_in_one_element_is_refused(
    bundle: Bundle, ort: Backend, role: str, spoil: Callable[[Tensor], None]
) -> None:
    with pytest.raises(BackendError, match=f"backend spoiling refused: graph {role} does not give its known answer"):
        LoadedGraphs(bundle, Spoiling(ort, spoil)).load(role)


def test_a_backend_that_fails_on_the_known_inputs_is_refused(bundle: Bundle, ort: Backend) -> None:
    def fail(x: Tensor) -> None:
        raise RuntimeError("device lost\nat frame 12")

    with pytest.raises(BackendError, match=r"spoiling refused: graph context_0 .*\(device lost\)\)$"):
        LoadedGraphs(bundle, Spoiling(ort, fail)).load("context_0")


def test_a_backend_that_cannot_load_a_graph_is_refused(bundle: Bundle, ort: Backend) -> None:
    broken = replace(bundle, graphs={**bundle.graphs, "analysis": b"no graph"})
    with pytest.raises(BackendError, match="backend ort cannot load graph analysis"):
        LoadedGraphs(broken, ort).load("analysis")


@pytest.mark.parametrize("role", EXACT)
def test_a_wrong_known_answer_refuses_the_backend_by_name(bundle: Bundle, ort: Backend, role: str) -> None:
    with pytest.raises(BackendError, match=f"backend ort refused: graph {role} does not give its known answer"):
        LoadedGraphs(with_answer(bundle, role, "0" * 64), ort).load(role)


def test_every_backend_is_refused_on_a_wrong_known_answer(
    bundle: Bundle, available_settings: dict[str, object], drawing: Callable[..., np.ndarray]
) -> None:
    doctored = with_answer(bundle, "prior_context_1", "f" * 64)
    for setting in available_settings.values():
        codec = Codec(doctored, setting.backend, setting.options)  # type: ignore[attr-defined]
        with pytest.raises(BackendError, match=f"backend {setting.backend} refused: graph prior_context_1"):  # type: ignore[attr-defined]
            codec.encode(drawing(40, 40), 32)


def test_float_graphs_need_no_known_answer(bundle: Bundle, ort: Backend) -> None:
    LoadedGraphs(bundle, Spoiling(ort, off_by_one)).load("synthesis")


def test_known_inputs_drive_sums_close_to_the_limit(bundle: Bundle) -> None:
    """The largest sum that a graph's first layer can reach is met, or the test could not tell a rounding from none."""
    onnx = pytest.importorskip("onnx")
    for role in EXACT:
        graph = bundle.manifest.graph(role)
        model = onnx.load_from_string(bundle.graphs[role]).graph
        stored = {t.name: onnx.numpy_helper.to_array(t).astype(np.int64) for t in model.initializer}
        first = next(n for n in model.node if n.op_type == "Conv")
        weight, bias = stored[f"{first.input[1]}_stored"][:, :, 0, 0], stored[f"{first.input[2]}_stored"]
        inputs = [x.astype(np.int64) for x in known_inputs(bundle, graph)[:-1]]
        x = inputs[0] if weight.shape[1] == inputs[0].shape[1] else np.concatenate(inputs, axis=1)
        sums = np.einsum("oi,ihw->ohw", weight, x[0]) + bias[:, None, None]
        possible = (np.abs(weight) * np.abs(x[0]).max(axis=(1, 2))).sum(axis=1) + np.abs(bias)
        assert np.abs(sums).max() > 0.4 * possible.max(), role


def test_an_answer_depends_on_every_value_and_not_on_the_dtype() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    assert answer_of([x]) == answer_of([x.astype(np.float64)])
    assert answer_of([x]) == hashlib.sha256(bytes(b for k in range(12) for b in (k, 0, 0, 0))).hexdigest()
    for k in range(12):
        other = x.copy()
        other.flat[k] += 1
        assert answer_of([other]) != answer_of([x])


def test_a_backend_that_is_half_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        def load(self) -> object:
            raise AttributeError("no attribute 'SessionOptions'")

    monkeypatch.setattr(backends, "_registered", lambda: {"half": Half()})
    with pytest.raises(BackendError, match=r"half is installed and does not load .*SessionOptions"):
        open_backend("half")


def test_auto_passes_over_a_backend_that_computes_wrongly(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from condic.runtime.backends.ort import OrtBackend

    class Wrong(OrtBackend):
        name = "wrong"

        def load(self, graph: Graph, bundle: Bundle) -> Runner:
            run = super().load(graph, bundle)
            return lambda inputs: [x + 1 for x in run(inputs)]

    known = dict(backends._registered())
    monkeypatch.setattr(backends, "_registered", lambda: known | {"wrong": SimpleNamespace(load=lambda: Wrong)})
    monkeypatch.setattr(backends, "PREFERENCE", ("wrong", "ort"))
    assert Codec(bundle, "auto").backend_name == "ort"
