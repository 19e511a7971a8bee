"""A bundle's graphs to engines: one per graph and profile, each built once and kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from condic.engines.attention import Verdict, verdicts
from condic.engines.builder import (
    Plan,
    ReportProgress,
    Shape,
    build_plan,
    check_options,
    check_plan,
    knows_attention,
    refit_plan,
)
from condic.engines.gpu import Gpu
from condic.engines.graphs import blocks_of, for_tensorrt
from condic.engines.profiles import aligned
from condic.errors import BackendError
from condic.runtime.bundle import Bundle
from condic.runtime.cache import Cache
from condic.runtime.engine_cache import (
    Engine,
    EngineKey,
    Option,
    Profile,
    Target,
    engine_path,
    read_engine,
    stored_engines,
    write_engine,
)
from condic.runtime.manifest import Graph
from condic.runtime.tensorrt_library import TensorRt

_RTX_CAPABILITY = "8.0"
"""The lowest compute capability that TensorRT-RTX builds for unless told otherwise."""


def canonical_options(options: Iterable[Option]) -> tuple[Option, ...]:
    """Each option once, as keys of engines have them."""
    return tuple(sorted(set(options)))


@dataclass(frozen=True)
class Order:
    """What to build: the profiles, the options, where to, whether attention must come out fused, how long TensorRT
    looks for fast kernels (0 to 5; None: as long as it does by itself, or did), and whether engines that are there are
    built again.
    """

    folder: Path
    profiles: Sequence[Profile]
    options: tuple[Option, ...] = ()
    require_fused: bool = False
    optimization_level: int | None = None
    rebuild: bool = False

    def __post_init__(self) -> None:
        """However options are given, an engine with the same ones is the same."""
        object.__setattr__(self, "options", canonical_options(self.options))


@dataclass(frozen=True)
class Built:
    """An engine that is there now, what was done for it and why, how long that took, and its attention."""

    path: Path
    key: EngineKey
    done: Literal["built", "refitted", "kept"]
    reason: str
    seconds: float
    bytes: int
    attention: tuple[Verdict, ...]


def target_of(trt: TensorRt, gpu: Gpu | None) -> Target:
    """Where engines of this TensorRT will run. Raises BackendError if it needs a GPU, and there is none."""
    if trt.flavour == "tensorrt-rtx" and (gpu is None or float(gpu.capability) >= float(_RTX_CAPABILITY)):
        return Target("", _RTX_CAPABILITY, trt.flavour, trt.version)
    if gpu is None:
        raise BackendError(
            f"{trt} builds engines on the GPU that they are for, and there is none here (no NVIDIA driver that finds "
            "one); TensorRT-RTX builds without"
        )
    return Target(gpu.name, gpu.capability, trt.flavour, trt.version)


def build_engines(
    bundle: Bundle,
    order: Order,
    trt: TensorRt,
    gpu: Gpu | None,
    report: Callable[[Built], None],
    progress: Callable[[Graph, Profile], ReportProgress],
) -> None:
    """Builds what is not there yet, damaged, of an older graph, or not taken by TensorRT.

    `report` is called after each engine. Raises BackendError for what TensorRT refuses, and for attention that is not
    fused where the order requires it.
    """
    check_options(trt, order.options)
    target = target_of(trt, gpu)
    for graph in bundle.manifest.graphs:
        try:
            data = for_tensorrt(bundle.graphs[graph.role], attention=knows_attention(trt))
        except BackendError as error:
            raise BackendError(f"{graph.role}: {error}") from error
        for profile in order.profiles:
            precision = graph.precision if graph.precision != "float" else _float_precision(bundle)
            rounded = aligned(profile, bundle.manifest.alignment)
            key = EngineKey(bundle.manifest.bundle_id, graph.role, precision, target, rounded, order.options)
            report(_Work(trt, gpu, graph, data, key, order).done(progress(graph, profile)))


@dataclass(frozen=True)
class _Work:
    """One engine."""

    trt: TensorRt
    gpu: Gpu | None
    graph: Graph
    data: bytes
    key: EngineKey
    order: Order

    def done(self, progress: ReportProgress) -> Built:
        start = time.perf_counter()
        path = engine_path(self.order.folder, self.key)
        try:
            engine = read_engine(path)
            reason = self._why_again(engine)
        except BackendError as error:
            engine, reason = None, str(error) if path.exists() else self._stale()
        if engine is not None and not reason:
            return self._built(engine, "kept", "", start)
        if engine := self._refitted():
            return self._built(engine, "refitted", "its weights were stripped", start)
        return self._built(self._made(progress), "built", reason, start)

    def _built(self, engine: Engine, done: Literal["built", "refitted", "kept"], reason: str, start: float) -> Built:
        attention = tuple(Verdict(**x) for x in engine.notes["attention"])
        if self.order.require_fused:
            self._demand_fused(attention)
        path = engine_path(self.order.folder, self.key)
        if done != "kept":
            write_engine(self.order.folder, engine)
        seconds = time.perf_counter() - start
        return Built(path, self.key, done, reason, seconds, len(engine.plan), attention)

    def _made(self, progress: ReportProgress) -> Engine:
        start = time.perf_counter()
        timings = Cache(self.order.folder / "timings")
        known = timings.get(str(self.key.target)) or b""
        data, apart = self.data, ""
        try:
            plan = self._plan(data, known, progress)
        except BackendError as error:
            if not blocks_of(data).whole or self.order.require_fused:
                raise BackendError(f"{self.graph.role}: {error}") from error
            data, apart = for_tensorrt(self.data, attention=False), _why_apart(str(error))
            plan = self._plan(data, known, progress)
        if plan.timing_cache:
            timings.put(plan.timing_cache, str(self.key.target))
        attention = verdicts(blocks_of(data), plan.layers, plan.source)
        if apart:
            attention = [replace(x, fused="not fused", reason=apart) for x in attention]
        notes = {
            "graph": self._digest,
            "build_seconds": time.perf_counter() - start,
            "optimization_level": self.order.optimization_level,
            "source": plan.source,
            "layers": [asdict(x) for x in plan.layers],
            "attention": [asdict(x) for x in attention],
        }
        return Engine(self.key, plan.data, notes)

    @property
    def _loads_here(self) -> bool:
        """Whether the engine can be loaded where it is built."""
        return self.key.target.flavour == "tensorrt"

    def _plan(self, data: bytes, timings: bytes, progress: ReportProgress) -> Plan:
        for_one_gpu = self.key.target.flavour == "tensorrt-rtx" and bool(self.key.target.gpu)
        return build_plan(
            self.trt, data, _shapes(self.graph, self.key.profile), self.key.precision, self.key.options,
            optimization_level=self.order.optimization_level,
            capability=self.key.target.compute_capability if for_one_gpu else None,
            inspect=self._loads_here,  # RTX makes its kernels only when an engine is loaded
            timing_cache=timings, progress=progress,
        )  # fmt: skip

    def _refitted(self) -> Engine | None:
        """The same engine from one that was stripped of its weights, if there is one and it can be loaded here."""
        if self.gpu is None or "weight-stripped" in self.key.options:
            return None
        with suppress(BackendError):
            key = replace(self.key, options=canonical_options((*self.key.options, "weight-stripped")))
            stripped = read_engine(engine_path(self.order.folder, key))
            if not self._why_again(stripped):
                return Engine(self.key, refit_plan(self.trt, stripped.plan, self.data), stripped.notes)
        return None

    def _demand_fused(self, attention: Sequence[Verdict]) -> None:
        if self.key.precision == "guarded":  # in float32 for good
            return
        for k, verdict in enumerate(attention):
            if verdict.fused != "fused":
                hint = "; export with --fp16" if self.key.precision == "fp32" else ""
                raise BackendError(
                    f"{self.graph.role}: attention {k} is not known to be one kernel ({verdict.reason}){hint}"
                )

    def _why_again(self, engine: Engine) -> str:
        """Why an engine that is there and whole has to be built again; empty if it need not."""
        if self.order.rebuild:
            return "as ordered"
        if engine.notes.get("graph") != self._digest:
            return "the graph has changed"
        ordered, level = self.order.optimization_level, engine.notes.get("optimization_level")
        if ordered not in (None, level):
            return f"it was built at {'no particular' if level is None else 'another'} optimization level"
        if self._loads_here:
            try:
                check_plan(self.trt, engine.plan)
            except BackendError as error:
                return str(error)
        return ""

    def _stale(self) -> str:
        """Why an engine of the same graph that is there will not do: of another GPU or TensorRT."""
        mine = (self.key.precision, self.key.profile)
        stored = stored_engines(self.order.folder, self.key.bundle_id, self.key.role)
        keys = [key for _, key in stored if isinstance(key, EngineKey) and (key.precision, key.profile) == mine]
        return next((misfit for key in keys if (misfit := key.misfit(self.key.target))), "")

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def _why_apart(message: str) -> str:
    """What TensorRT says when it has no kernel for an `Attention`, in short; all else as it is."""
    return "TensorRT has no kernel of its own for it" if "dedicated kernel" in message else message


def _float_precision(bundle: Bundle) -> Literal["fp16", "fp32"]:
    return "fp16" if bundle.manifest.precision == "fp16" else "fp32"


def _shapes(graph: Graph, profile: Profile) -> dict[str, list[Shape]]:
    """Smallest, usual and largest shape of each input that has a height and a width."""
    sizes = (profile.smallest, profile.usual, profile.largest)
    return {
        x.name: [(1, x.channels, height // x.stride, width // x.stride) for height, width in sizes]
        for x in graph.inputs
        if x.stride
    }
