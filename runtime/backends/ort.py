"""ONNX Runtime on the CPU: the default backend."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache

from condic.runtime.arrays import Tensor
from condic.runtime.backends import BackendOptions, Runner
from condic.runtime.backends.telemetry import without_telemetry
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph

with without_telemetry():
    import onnxruntime


@cache
def _share_memory() -> None:
    """Makes an arena for all sessions of this process, which keeps what the largest image took.

    Graphs run one after the other: with an arena each, every session would keep its own peak. With none, tensors of
    large images would come from the system each time, page by page: a fifth of the time at 4K, and more memory.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    defaults = {
        "max_mem": 0,
        "arena_extend_strategy": -1,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    with suppress(RuntimeError):  # another user of ONNX Runtime in this process has made one
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(defaults))


class OrtBackend:
    """Runs graphs with ONNX Runtime's CPU provider in float32."""

    name = "ort"
    driver = None

    def __init__(self, options: BackendOptions) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 4  # errors are raised, too
        _share_memory()
        self._options.add_session_config_entry("session.use_env_allocators", "1")
        self._options.enable_mem_pattern = False  # it lays tensors out ahead, which takes more memory and saves no time
        self._options.intra_op_num_threads = options.threads
        # A bundle is a dozen sessions, each with threads of its own: idle ones must not spin while the next one works.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")
        if not options.optimise:
            self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def describe(self) -> str:
        """Library, version and device, for people."""
        return f"ONNX Runtime {onnxruntime.__version__}, CPU"

    def load(self, graph: Graph, bundle: Bundle) -> Runner:
        """A session on the graph."""
        session = onnxruntime.InferenceSession(  # it would report a failure on standard output, and try again
            bundle.graphs[graph.role], self._options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        names = [x.name for x in graph.inputs]
        outputs = [x.name for x in graph.outputs]
        found = [x.name for x in session.get_inputs()], [x.name for x in session.get_outputs()]
        if {*names} != {*found[0]} or not {*outputs} <= {*found[1]}:
            raise ValueError("its tensors do not have the manifest's names")

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            result: list[Tensor] = session.run(outputs, dict(zip(names, inputs, strict=True)))
            return result

        return run
