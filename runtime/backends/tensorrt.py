"""TensorRT (8.6, 10, 11) and TensorRT-RTX: runs the engines that `condic-export --engines` has built for this GPU."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

from condic.errors import BackendError, CondicWarning, DeviceMemoryError, SizeError
from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle
from condic.runtime.cache import Cache
from condic.runtime.cuda.driver import CPU, Driver, find_libcuda, open_driver
from condic.runtime.cuda.graph import DeviceGraph
from condic.runtime.engine_cache import Engine, EngineKey, Search, Target, engine_folder, engine_precisions
from condic.runtime.known_answer import check_known_answer
from condic.runtime.manifest import Graph, Size
from condic.runtime.tensorrt_library import TensorRt, find_tensorrt

_STRATEGY = "ExecutionContextAllocationStrategy"
"""TensorRT 10 and later have it."""
_SPECIALISATION = "DynamicShapesKernelSpecializationStrategy"
"""TensorRT-RTX has it: kernels for the shapes at hand are compiled beside the first runs, unless it is told to do so
before. A CUDA graph would keep the general ones for ever, and the known answer would be that of others."""
_KERNEL_CACHE = "create_runtime_cache"
"""TensorRT-RTX has it, of a configuration."""


class TensorRtBackend:
    """Runs engines: float graphs in the precision that they were built for, exact ones in float32 with TF32."""

    name = "tensorrt"

    def __init__(self, options: BackendOptions) -> None:
        """Raises BackendError where there is no GPU, no TensorRT, or no pycuda."""
        find_libcuda()  # TensorRT 8.6 crashes without it
        self._library = find_tensorrt()
        self.driver: Driver = open_driver()
        with self.driver.entered():
            self._runtime = self._library.api.Runtime(self._library.logger)
        device, library = self.driver.device, self._library
        capability = ".".join(map(str, device.capability))
        self._target = Target(device.name, capability, library.flavour, library.version)
        self._kernels = _Kernels(f"{self._target}, {device.describe()}")
        self._build_seconds: dict[EngineKey, float] = {}

    def describe(self) -> str:
        """Library, version and device, for people."""
        return f"{self._library}, {self.driver.device.describe()}"

    @property
    def build_seconds(self) -> float:
        """Seconds that `condic-export` took to build the engines that have been loaded so far."""
        return sum(self._build_seconds.values())

    def load(self, graph: Graph, bundle: Bundle) -> DeviceGraph:
        """The graph; engines are loaded for the sizes that are asked for, and exact ones tested then."""
        engines = _Engines(graph, bundle, self._library, self._runtime, self.driver, self._target, self._kernels,
                           self._build_seconds)  # fmt: skip
        return DeviceGraph(self.driver, graph, engines.prepare, engines.takes)


class _Engines:
    """The engines of one graph, by the profiles that sizes have called for so far."""

    def __init__(
        self,
        graph: Graph,
        bundle: Bundle,
        library: TensorRt,
        runtime: Any,
        driver: Driver,
        target: Target,
        kernels: _Kernels,
        build_seconds: dict[EngineKey, float],
    ) -> None:
        self._graph, self._bundle, self._library, self._driver = graph, bundle, library, driver
        self._runtime, self._target, self._kernels, self._build_seconds = runtime, target, kernels, build_seconds
        self._loaded: dict[EngineKey, Any] = {}
        self._taken: dict[Size, bool] = {}
        self._lock = threading.Lock()

    def prepare(self, size: Size) -> _Execution:
        """An execution for a padded image's size, with the engine of the smallest profile that takes it."""
        with self._lock:
            return self._execution(self._engine(size), size)

    def takes(self, size: Size) -> bool:
        """Whether there is a whole engine for a size; found out once."""
        if size not in self._taken:
            try:
                self._search(size).read()
                self._taken[size] = True
            except BackendError:
                self._taken[size] = False
        return self._taken[size]

    def _engine(self, size: Size) -> Any:
        """The loaded engine for a size. Raises SizeError if there is none: there may be one for tiles."""
        search = self._search(size)
        try:
            (_, key), *_ = search.fitting()
            if key in self._loaded:
                return self._loaded[key]
            engine = search.read()  # of another key, if the best one is damaged
        except BackendError as error:
            raise SizeError(str(error)) from error
        if engine.key not in self._loaded:
            self._loaded[engine.key] = self._tested(self._load(engine))
            self._build_seconds[engine.key] = engine.notes.get("build_seconds", 0.0)
        return self._loaded[engine.key]

    def _execution(self, engine: Any, size: Size) -> _Execution:
        return _Execution(self._graph, self._library, engine, self._kernels, size)

    def _search(self, size: Size) -> Search:
        bundle_id, precisions = self._bundle.manifest.bundle_id, engine_precisions(self._graph)
        return Search(engine_folder(), bundle_id, self._graph.role, precisions, self._target, size)

    def _load(self, engine: Engine) -> Any:
        """The engine in TensorRT's own form. Raises BackendError."""
        if "version-compatible" in engine.key.options:  # such a plan brings a runtime of its own
            self._runtime.engine_host_code_allowed = True
        loaded = self._runtime.deserialize_cuda_engine(engine.plan)
        if loaded is None:
            again = "build it again with condic-export --engines, or "
            raise _failure(self._library, "rejects its engine of", self._graph, again)
        return loaded

    def _tested(self, loaded: Any) -> Any:
        """An engine that gives the known answer, if its graph has one. Raises BackendError for any other."""
        if self._graph.precision == "exact":
            run = DeviceGraph(self._driver, self._graph, lambda size: self._execution(loaded, size))
            try:
                check_known_answer(self._bundle, self._graph, run, "tensorrt")
            finally:
                run.close()
        return loaded


class _Kernels:
    """The kernels that TensorRT-RTX compiles when contexts are made: kept, since otherwise each process compiles them.

    Those that another device, driver or version has compiled are not taken; TensorRT looks at that, too.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._cache: Any = None
        self._grown = False

    def used_by(self, config: Any) -> None:
        """Contexts that are made with a configuration take kernels from here, and put theirs here."""
        if not hasattr(config, _KERNEL_CACHE):
            return
        if self._cache is None:
            self._cache = getattr(config, _KERNEL_CACHE)()
            if known := self._store().get(self._origin):
                self._cache.deserialize(known)
        self._grown |= config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Writes what contexts have compiled, if there have been any since the last time."""
        if self._grown and (kernels := self._cache.serialize()) is not None:
            self._store().put(bytes(kernels), self._origin)
        self._grown = False

    def _store(self) -> Cache:
        return Cache(engine_folder() / "kernels")


def _context(api: Any, engine: Any, kernels: _Kernels) -> Any:
    """An execution context whose memory is ours; None if TensorRT refuses."""
    if not hasattr(api, _STRATEGY):
        return engine.create_execution_context_without_device_memory()
    ours = getattr(api, _STRATEGY).USER_MANAGED
    if not hasattr(api, _SPECIALISATION):
        return engine.create_execution_context(ours)
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(ours)
    config.dynamic_shapes_kernel_specialization_strategy = getattr(api, _SPECIALISATION).EAGER
    kernels.used_by(config)
    return engine.create_execution_context(config)


class _Execution:
    """An execution context with its shapes set, in memory that each run names."""

    capturable = True

    def __init__(self, graph: Graph, library: TensorRt, engine: Any, kernels: _Kernels, size: Size) -> None:
        self._graph, self._library, self._kernels = graph, library, kernels
        self._memory = 0
        self._context = _context(library.api, engine, kernels)
        if self._context is None:
            raise self._error("makes no execution context")
        names = {engine.get_tensor_name(k) for k in range(engine.num_io_tensors)}
        for name in names:
            if engine.get_tensor_dtype(name) != library.api.DataType.FLOAT:
                raise BackendError(f"engine of {graph.role}: tensor {name} is not float32; export the model again")
        self._used = [spec.name in names for spec in (*graph.inputs, *graph.outputs)]  # it may drop what nothing reads
        for spec in graph.inputs:
            if spec.name in names and not self._context.set_input_shape(spec.name, spec.shape(*size)):
                raise self._error(f"refuses input {spec.name} of shape {spec.shape(*size)}")
        if hasattr(self._context, "update_device_memory_size_for_shapes"):
            self.scratch = int(self._context.update_device_memory_size_for_shapes())
        else:
            self.scratch = int(engine.device_memory_size)

    def enqueue(self, inputs: Sequence[int], outputs: Sequence[int], scratch: int, stream: int) -> None:
        """See `Execution`."""
        specs = (*self._graph.inputs, *self._graph.outputs)
        for spec, address, used in zip(specs, (*inputs, *outputs), self._used, strict=True):
            if used:
                self._context.set_tensor_address(spec.name, address)
        if self.scratch and scratch != self._memory:
            self._set_memory(scratch)
        if not self._context.execute_async_v3(stream):
            raise self._error("fails")

    def close(self) -> None:
        """Lets the context go."""
        self._kernels.keep()
        self._context = None

    def _set_memory(self, scratch: int) -> None:
        """Where TensorRT refuses, its log alone says so. 8.6 then takes memory of its own; later ones have none."""
        self._library.errors.clear()
        if hasattr(self._context, "set_device_memory"):
            self._context.set_device_memory(scratch, self.scratch)
            if self._library.errors:
                raise self._error("refuses its scratch memory")
        else:
            self._context.device_memory = scratch
            if self._library.errors:
                reason = self._library.last_error()
                warnings.warn(f"{self._library} takes memory of its own for each graph: {reason}", CondicWarning, 2)
        self._memory = scratch

    def _error(self, what: str) -> BackendError:
        return _failure(self._library, f"{what} in graph", self._graph)


def _failure(library: TensorRt, what: str, graph: Graph, again: str = "") -> BackendError:
    """What TensorRT said last, as an error of ours: DeviceMemoryError where memory is what it lacked."""
    reason = library.last_error()
    kind = DeviceMemoryError if "outofmemory" in reason.lower().replace(" ", "") else BackendError
    return kind(f"{library} {what} {graph.role} ({reason}); {'' if kind is DeviceMemoryError else again}{CPU}")
