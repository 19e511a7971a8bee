"""TensorRT's Python modules, as far as the backend uses them, on a fake driver. A plan is the name of a graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_emulator import view
from fake_driver import FakeDriver

from condic.runtime.backends import BackendOptions, open_backend
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph

SCRATCH = 500


def fake_module(version: str, driver: FakeDriver, bundle: Bundle) -> Any:
    """What `import tensorrt` gives: 8 and TensorRT-RTX (1) have other ways to leave memory to the caller than 10."""
    old, rtx = version.startswith("8."), version.startswith("1.")
    inner = open_backend("ort", BackendOptions(threads=1))

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class IProfiler:
        pass

    class Context:
        def __init__(self, engine: Engine) -> None:
            self._engine, self._shapes, self._addresses = engine, {}, {}
            self._memory: tuple[int, int] | None = (0, 0)
            self.profiler: Any = None

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shapes[name] = shape
            return shape[2] <= module.largest

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            graph = self._engine.graph
            if module.failing:
                self._engine.logger.log(ILogger.Severity.ERROR, module.failing)
                return False
            assert set(self._shapes) == {x.name for x in graph.inputs}
            inputs = [(self._addresses[x.name], self._shapes[x.name]) for x in graph.inputs]
            addresses, memory = dict(self._addresses), self._memory

            def work() -> None:
                if memory is not None:  # its own, which nobody sees
                    driver.check(*memory)
                    assert memory[1] >= SCRATCH
                    view(memory[0], memory[1], np.uint8).fill(0x77)
                arrays = [view(address, shape, np.float32) for address, shape in inputs]
                for spec, result in zip(graph.outputs, self._engine.run(arrays), strict=True):
                    driver.check(addresses[spec.name], result.nbytes)
                    view(addresses[spec.name], result.shape, np.float32)[...] = result + module.error

            driver.queue(stream, work)
            if self.profiler is not None:
                for name in ("first", "second"):
                    self.profiler.report_layer_time(f"{graph.role}: {name}", 0.5)
            return True

    if old:

        def set_memory(self: Context, at: int) -> None:
            if at % module.alignment:  # which 8.6.0 says on an H200, keeping the memory that it had
                self._engine.logger.log(ILogger.Severity.ERROR, "setDeviceMemory: memory must be aligned on 512")
                self._memory = None
                return
            self._memory = (at, SCRATCH)

        Context.device_memory = property(None, set_memory)  # type: ignore[attr-defined]
    else:
        Context.update_device_memory_size_for_shapes = lambda self: SCRATCH  # type: ignore[attr-defined]

        def set_device_memory(self: Context, at: int, size: int) -> None:
            if at % module.alignment:
                self._engine.logger.log(ILogger.Severity.ERROR, "setDeviceMemory: memory must be aligned")
                return
            self._memory = (at, size)

        Context.set_device_memory = set_device_memory  # type: ignore[attr-defined]

    class Engine:
        device_memory_size = SCRATCH

        def __init__(self, graph: Graph, logger: Any) -> None:
            self.graph, self.logger = graph, logger
            self.run = inner.load(graph, bundle)
            self._names = [x.name for x in (*graph.inputs, *graph.outputs)]
            self.num_io_tensors = len(self._names)

        def get_tensor_name(self, k: int) -> str:
            return self._names[k]

        def get_tensor_dtype(self, name: str) -> str:
            return "float32"

        def _context(self) -> Context:
            module.contexts += 1
            return Context(self)

    if old:
        Engine.create_execution_context_without_device_memory = Engine._context  # type: ignore[attr-defined]
    else:

        def create_execution_context(self: Engine, given: Any) -> Context:
            if rtx:
                assert given.strategy == "user"
                assert given.dynamic_shapes_kernel_specialization_strategy == "eager"
                if self.graph.role not in given.cache.kernels:
                    given.cache.kernels.append(self.graph.role)
                    module.compiled.append(self.graph.role)
            else:
                assert given == "user"
            return self._context()

        Engine.create_execution_context = create_execution_context  # type: ignore[attr-defined]
    if rtx:

        class RuntimeCache:
            def __init__(self) -> None:
                self.kernels: list[str] = []

            def deserialize(self, known: bytes) -> bool:
                self.kernels = known.decode().split()
                return True

            def serialize(self) -> bytes:
                return " ".join(self.kernels).encode()

        class RuntimeConfig:
            def create_runtime_cache(self) -> RuntimeCache:
                return RuntimeCache()

            def set_runtime_cache(self, cache: RuntimeCache) -> bool:
                self.cache = cache
                return True

            def set_execution_context_allocation_strategy(self, strategy: str) -> None:
                self.strategy = strategy

        Engine.create_runtime_config = lambda self: RuntimeConfig()  # type: ignore[attr-defined]

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            module.plans.append(plan)
            if plan == b"foreign":
                self._logger.log(ILogger.Severity.ERROR, "Serialization assertion failed")
                return None
            return Engine(bundle.manifest.graph(plan.decode()), self._logger)

    module = SimpleNamespace(
        __version__=version, ILogger=ILogger, IProfiler=IProfiler, Runtime=Runtime,
        DataType=SimpleNamespace(FLOAT="float32"), plans=[], contexts=0, failing="", error=0, largest=2**16,
        alignment=512, compiled=[],
    )  # fmt: skip
    if not old:
        module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    if rtx:
        module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    return module
