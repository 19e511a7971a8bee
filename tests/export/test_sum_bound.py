"""The proof of exactness, redone on the graphs of the shipped bundles: no partial sum can reach 2^24.

Nothing of `condic.models` is used: intervals are pushed through the ONNX nodes themselves, channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph

onnx = pytest.importorskip("onnx")

OPERAND_LIMIT = 2047
SUM_LIMIT = 2**24


@dataclass(frozen=True)
class Interval:
    """What a tensor's channels can hold: multiples of 2^-fraction in [low, high]; `total` bounds every partial sum."""

    low: np.ndarray
    high: np.ndarray
    fraction: int = 0
    total: np.ndarray | None = None

    @property
    def magnitude(self) -> np.ndarray:
        return np.maximum(np.abs(self.low), np.abs(self.high))


class Prover:
    """Pushes intervals through an exact graph and asserts the rules of exactness at each node."""

    def __init__(self, model: bytes, inputs: dict[str, Interval]) -> None:
        self.graph = onnx.load_from_string(model).graph
        self.constants = {t.name: onnx.numpy_helper.to_array(t) for t in self.graph.initializer}
        self.intervals = dict(inputs)
        self.totals: list[float] = []

    def run(self) -> dict[str, Interval]:
        for node in self.graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            result = getattr(self, f"_{node.op_type.lower()}")(node, **attributes)
            if result is not None:
                self.intervals[node.output[0]] = result
        return {x.name: self.intervals[x.name] for x in self.graph.output}

    def _cast(self, node, *, to: int) -> None:  # type: ignore[no-untyped-def]
        stored = self.constants[node.input[0]]
        assert to == onnx.TensorProto.FLOAT
        assert stored.dtype == (np.int32 if "bias" in node.input[0] else np.int16)
        self.constants[node.output[0]] = stored.astype(np.int64)

    def _conv(
        self, node, *, group: int, kernel_shape: list[int], strides: list[int], dilations: list[int], **_
    ) -> Interval:  # type: ignore[no-untyped-def]
        x, weight, bias = self.intervals[node.input[0]], *(self.constants[name] for name in node.input[1:])
        assert x.fraction == 0, f"{node.input[0]} is not an integer"
        assert x.magnitude.max() <= OPERAND_LIMIT, f"{node.input[0]} has values that TF32 would round"
        assert np.abs(weight).max() <= OPERAND_LIMIT, f"{node.input[1]} has values that TF32 would round"
        assert set(strides) == set(dilations) == {1}
        depthwise = group == len(weight) and kernel_shape == [3, 3]
        assert depthwise or (group == 1 and kernel_shape == [1, 1]), "a dense 3x3 may be run as Winograd"
        per_tap = (len(weight), 1, 1, 1) if depthwise else (1, len(x.low), 1, 1)
        products = np.stack([weight * x.low.reshape(per_tap), weight * x.high.reshape(per_tap), np.zeros_like(weight)])
        axes = (1, 2, 3)
        total = (np.abs(weight) * x.magnitude.reshape(per_tap)).sum(axis=axes) + np.abs(bias)
        self._assert_bounded(node.output[0], total)
        return Interval(products.min(0).sum(axis=axes) + bias, products.max(0).sum(axis=axes) + bias, 0, total)

    def _add(self, node) -> Interval:  # type: ignore[no-untyped-def]
        a, b = (self.intervals[name] for name in node.input)
        assert a.fraction == b.fraction == 0, f"{node.output[0]} adds values that are no integers"
        total = sum(x.magnitude if x.total is None else x.total for x in (a, b))
        self._assert_bounded(node.output[0], total)
        return Interval(a.low + b.low, a.high + b.high, 0, total)

    def _mul(self, node) -> Interval:  # type: ignore[no-untyped-def]
        x, scale = self.intervals[node.input[0]], self.constants[node.input[1]].reshape(-1).astype(np.float64)
        mantissa, exponent = np.frexp(scale)
        shift = 1 - exponent
        assert (mantissa == 0.5).all(), f"{node.input[1]} is not a power of two"
        assert (shift >= 1).all(), f"{node.input[1]} leaves no bit for the rounding term"
        assert (shift <= 60).all(), f"{node.input[1]} is next to nothing"
        return Interval(x.low * scale, x.high * scale, int(shift.max()))

    def _floor(self, node) -> Interval:  # type: ignore[no-untyped-def]
        x = self.intervals[node.input[0]]
        return Interval(np.floor(x.low), np.floor(x.high))

    def _clip(self, node) -> Interval:  # type: ignore[no-untyped-def]
        x, low, high = self.intervals[node.input[0]], *(float(self.constants[name]) for name in node.input[1:])
        assert low == int(low)
        assert high == int(high)
        return Interval(np.clip(x.low, low, high), np.clip(x.high, low, high), x.fraction)

    def _concat(self, node, *, axis: int) -> Interval:  # type: ignore[no-untyped-def]
        assert axis == 1
        parts = [self.intervals[name] for name in node.input]
        assert all(x.fraction == 0 for x in parts)
        return Interval(np.concatenate([x.low for x in parts]), np.concatenate([x.high for x in parts]))

    def _depthtospace(self, node, *, blocksize: int, mode: bytes) -> Interval:  # type: ignore[no-untyped-def]
        assert mode == b"CRD"
        x = self.intervals[node.input[0]]
        low, high = (part.reshape(-1, blocksize**2) for part in (x.low, x.high))
        return Interval(low.min(axis=1), high.max(axis=1), x.fraction)

    def _assert_bounded(self, name: str, total: np.ndarray) -> None:
        self.totals.append(float(total.max()))
        worst = int(total.argmax())
        assert total.max() < SUM_LIMIT, f"{self.graph.name}: {name}, channel {worst}: sums can reach {total.max():.0f}"


def exact_graphs(bundle: Bundle) -> list[Graph]:
    return [g for g in bundle.manifest.graphs if g.precision == "exact"]


def uses(bundle: Bundle, role: str) -> list[tuple[str, ...]]:
    """The tensors on which the manifest runs a graph, wherever it does."""
    manifest = bundle.manifest
    steps = [s.inputs for s in (*manifest.encode, *manifest.decode, *manifest.preview) if s.target == role]
    return steps + [c.inputs for latent in manifest.latents for c in latent.chunks if c.graph == role]


def interval_of(name: str, bundle: Bundle, made: dict[str, Interval]) -> Interval:
    """What the runtime can put into a graph's input."""
    if name.startswith("quality."):
        rows = bundle.tables[name].astype(np.int64)
        assert bundle.tables[name].dtype == np.int32
        return Interval(rows.min(axis=0), rows.max(axis=0))
    if name.endswith(".context"):
        latent = bundle.manifest.latent(name.removesuffix(".context"))
        limit = np.full(latent.channels, latent.context_limit)
        return Interval(-limit, limit)
    return made[name]


def prove(bundle: Bundle, widen: float = 1) -> dict[str, Interval]:
    """Intervals of everything that exact graphs compute; AssertionError where a rule is broken."""
    made: dict[str, Interval] = {}
    results = {}
    producers = {s.target: s.outputs for s in bundle.manifest.decode if s.op == "run"}
    order = sorted(exact_graphs(bundle), key=lambda g: g.role not in producers)
    for graph in order:
        runs = uses(bundle, graph.role)
        assert runs, f"{graph.role} is never run"
        for inputs in set(runs):
            intervals = {x.name: interval_of(name, bundle, made) for x, name in zip(graph.inputs, inputs, strict=True)}
            intervals = {k: Interval(x.low * widen, x.high * widen) for k, x in intervals.items()}
            outputs = Prover(bundle.graphs[graph.role], intervals).run()
            results[graph.role] = outputs[graph.outputs[0].name]
            if graph.role in producers:
                made |= dict(zip(producers[graph.role], outputs.values(), strict=True))
    return results


@pytest.fixture(params=["t", "s"])
def any_bundle(request: pytest.FixtureRequest, bundle: Bundle, shipped_bundle: Bundle) -> Bundle:
    return bundle if request.param == "t" else shipped_bundle


def test_no_sum_of_an_exact_graph_can_reach_2_to_the_24(any_bundle: Bundle) -> None:
    results = prove(any_bundle)
    assert set(results) == {g.role for g in exact_graphs(any_bundle)}
    assert len(results) == 8


def test_exact_graphs_give_means_of_16_bits_and_indexes_of_the_scale_table(any_bundle: Bundle) -> None:
    results = prove(any_bundle)
    for latent in any_bundle.manifest.latents:
        for chunk in latent.chunks:
            if chunk.graph is not None:
                mean, index = (results[chunk.graph].low, results[chunk.graph].high), slice(latent.channels, None)
                assert mean[0][: latent.channels].min() >= -(2**15)
                assert mean[1][: latent.channels].max() < 2**15
                assert mean[0][index].min() >= 0
                assert mean[1][index].max() < any_bundle.manifest.scales
            else:
                assert chunk.table is not None
                table = any_bundle.tables[chunk.table]
                assert table.dtype == np.int16
                assert (table[:, latent.channels :] >= 0).all()
                assert (table[:, latent.channels :] < any_bundle.manifest.scales).all()


def test_known_answers_stay_within_the_inputs_that_the_bound_allows(any_bundle: Bundle) -> None:
    for graph in exact_graphs(any_bundle):
        inputs = next(iter(uses(any_bundle, graph.role)))
        for spec, name in zip(graph.inputs, inputs, strict=True):
            stored = any_bundle.tables[f"known.{graph.role}.{spec.name}"]
            if name.endswith(".context"):
                limit = any_bundle.manifest.latent(name.removesuffix(".context")).context_limit
                assert np.abs(stored.astype(int)).max() == limit
            if name.startswith("quality."):
                assert (stored.reshape(1, -1) == any_bundle.tables[name]).all(axis=1).any()


def test_the_proof_fails_for_inputs_beyond_their_limit(bundle: Bundle) -> None:
    with pytest.raises(AssertionError, match="TF32 would round"):
        prove(bundle, widen=4)


def test_the_proof_fails_for_a_weight_too_large(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.graphs["context_0"])
    weight = next(t for t in model.graph.initializer if t.name.endswith("mean.int_weight_stored"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] = 2047
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    graphs = {**bundle.graphs, "context_0": model.SerializeToString()}
    with pytest.raises(AssertionError, match="channel 3: sums can reach"):
        prove(replace(bundle, graphs=graphs))
