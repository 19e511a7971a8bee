"""ONNX Runtime on the CPU: the default backend."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime

from condic.runtime.backends import Array, BackendOptions, Runner
from condic.runtime.bundle import Bundle
from condic.runtime.manifest import Graph


class OrtBackend:
    """Runs graphs with ONNX Runtime's CPU provider in float32."""

    name = "ort"
    driver = None

    def __init__(self, options: BackendOptions) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 3
        self._options.enable_cpu_mem_arena = False  # each session would keep its peak: twice the memory, 3 % of time
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
        session = onnxruntime.InferenceSession(
            bundle.graphs[graph.role], self._options, providers=["CPUExecutionProvider"]
        )
        names = [x.name for x in graph.inputs]
        outputs = [x.name for x in graph.outputs]

        def run(inputs: Sequence[Array]) -> list[Array]:
            result: list[Array] = session.run(outputs, dict(zip(names, inputs, strict=True)))
            return result

        return run
