"""OpenVINO on the CPU. Float graphs run in bfloat16 where the processor has it, all others in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from condic.runtime.arrays import Tensor
from condic.runtime.backends import BackendOptions, Runner
from condic.runtime.backends.telemetry import without_telemetry
from condic.runtime.bundle import Bundle
from condic.runtime.cache import user_cache
from condic.runtime.manifest import Graph

with without_telemetry():
    import openvino


class OpenVinoBackend:
    """Runs graphs with OpenVINO's CPU plugin."""

    name = "openvino"
    driver = None

    def __init__(self, options: BackendOptions) -> None:
        self._core = openvino.Core()
        self._device: str = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        self._cache = user_cache("openvino")
        self._config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if options.threads:
            self._config["INFERENCE_NUM_THREADS"] = options.threads

    def describe(self) -> str:
        """Library, version and device, for people."""
        return f"OpenVINO {openvino.__version__.split('-')[0]}, {self._device}"

    def load(self, graph: Graph, bundle: Bundle) -> Runner:
        """A compiled model, from the user's cache if it is there, which takes a quarter of the time.

        Each call makes its own request, so threads do not share buffers.
        """
        config = dict(self._config)
        if graph.precision != "float":
            config["INFERENCE_PRECISION_HINT"] = "f32"  # the default may be bfloat16
        compiled = self._compile(bundle.graphs[graph.role], config)
        read = {name for x in compiled.inputs for name in x.names}  # OpenVINO drops inputs that nothing depends on

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            request = compiled.create_infer_request()
            named = {x.name: value for x, value in zip(graph.inputs, inputs, strict=True) if x.name in read}
            results = request.infer(named, share_inputs=True, share_outputs=True)
            return [results[x.name] for x in graph.outputs]  # the request's own, and nobody runs it again

        return run

    def _compile(self, model: bytes, config: Mapping[str, Any]) -> Any:
        abilities = " ".join(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        key = (model, openvino.__version__, self._device, abilities, repr(config))
        if blob := self._cache.get(*key):
            with suppress(RuntimeError):  # of a build that calls itself the same and is not
                return self._core.import_model(blob, "CPU", dict(config))
        compiled = self._core.compile_model(self._core.read_model(model, b""), "CPU", dict(config))
        self._cache.put(compiled.export_model().getvalue(), *key)
        return compiled
