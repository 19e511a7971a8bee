"""OpenVINO on the CPU. Float graphs run in bfloat16 where the processor has it, exact ones always in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino

from condic.runtime.backends import Array, BackendOptions, Runner
from condic.runtime.manifest import Graph


class OpenVinoBackend:
    """Runs graphs with OpenVINO's CPU plugin."""

    name = "openvino"

    def __init__(self, options: BackendOptions) -> None:
        self._core = openvino.Core()
        self._config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if options.threads:
            self._config["INFERENCE_NUM_THREADS"] = options.threads

    def describe(self) -> str:
        """Library, version and device, for people."""
        device = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        return f"OpenVINO {openvino.__version__.split('-')[0]}, {device}"

    def load(self, graph: Graph, model: bytes) -> Runner:
        """A compiled model; each call makes its own request, so threads do not share buffers."""
        config = dict(self._config)
        if graph.precision == "exact":
            config["INFERENCE_PRECISION_HINT"] = "f32"  # the default may be bfloat16, which changes integers
        compiled = self._core.compile_model(self._core.read_model(model, b""), "CPU", config)

        def run(inputs: Sequence[Array]) -> list[Array]:
            request = compiled.create_infer_request()
            named = {x.name: value for x, value in zip(graph.inputs, inputs, strict=True)}
            results = request.infer(named, share_inputs=True)
            return [np.array(results[x.name]) for x in graph.outputs]

        return run
