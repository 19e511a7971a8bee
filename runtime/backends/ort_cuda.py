"""ONNX Runtime's CUDA provider, with inputs and outputs bound to device addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from condic.errors import BackendError, DeviceMemoryError, SizeError, install_hint
from condic.kernels.device.libraries import wheel_libraries
from condic.runtime.backends import BackendOptions
from condic.runtime.backends.telemetry import without_telemetry
from condic.runtime.bundle import Bundle
from condic.runtime.cuda.driver import CPU, Driver, find_libcuda, open_driver
from condic.runtime.cuda.graph import DeviceGraph
from condic.runtime.manifest import Graph, Size

with without_telemetry():
    import onnxruntime

_PROVIDER, _DEVICE = "CUDAExecutionProvider", "cuda"
_MOST_PIXELS = 2**26
"""Of an image, padded. ONNX Runtime's kernels count a tensor's elements in 31 bits, and do not say so beyond: that many
have room for 32 elements a pixel (dcic-sgp's preset l has 12)."""
_NEEDED = ("cudart", "nvJitLink", "nvrtc", "cublasLt", "cublas", "curand", "cufft", "cudnn")
"""Libraries that the CUDA provider loads by name alone, those first that others need."""


class OrtCudaBackend:
    """Runs graphs in float32: with TF32 where they are float or exact, which changes nothing in exact ones."""

    name = "ort-cuda"

    def __init__(self, options: BackendOptions) -> None:
        """Raises BackendError where there is no GPU, or no CUDA provider."""
        find_libcuda()
        if _PROVIDER not in onnxruntime.get_available_providers():
            raise BackendError(
                "this is onnxruntime, not onnxruntime-gpu: pip uninstall onnxruntime, then "
                f"{install_hint('cuda')}; {CPU}"
            )
        _load_libraries()
        # ONNX Runtime 1.31 warns at each session that no plug-in has this provider, by a logger that no session has.
        onnxruntime.set_default_logger_severity(3)
        self.driver: Driver = open_driver()

    def describe(self) -> str:
        """Library, version and device, for people."""
        return f"ONNX Runtime {onnxruntime.__version__}, {self.driver.device.describe()}"

    def load(self, graph: Graph, bundle: Bundle) -> DeviceGraph:
        """The graph; a session is made for each stream that it is run on."""
        sessions = _Sessions(graph, bundle.graphs[graph.role])

        def prepare(size: Size) -> _Execution:
            if not _takes(size):
                raise SizeError(f"{size[1]}x{size[0]} pixels are more than ONNX Runtime's kernels count")
            return _Execution(graph, sessions, size)

        return DeviceGraph(self.driver, graph, prepare, _takes)


def _takes(size: Size) -> bool:
    return size[0] * size[1] <= _MOST_PIXELS


@cache
def _load_libraries() -> None:
    """Loads those that wheels have, once; the system's are found without."""
    for name in _NEEDED:
        for path in wheel_libraries(f"lib{name}.so.*"):
            with suppress(OSError):  # of another version of CUDA, say; what is lacking in the end is reported
                ctypes.CDLL(str(path))


class _Sessions:
    """A graph's sessions: one for each stream, since ONNX Runtime ties a session to the stream that it is to use."""

    def __init__(self, graph: Graph, model: bytes) -> None:
        self._model, self._tf32 = model, graph.precision != "guarded"
        self._sessions: dict[int, Any] = {}

    def on(self, stream: int) -> Any:
        """The session of a stream."""
        if stream not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            provider = {
                "device_id": 0, "user_compute_stream": str(stream), "use_tf32": int(self._tf32),
                "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC",
            }  # fmt: skip
            try:
                session = onnxruntime.InferenceSession(
                    self._model, options, providers=[(_PROVIDER, provider), "CPUExecutionProvider"], enable_fallback=0
                )
            except Exception as error:  # ONNX Runtime has no class of its own for it
                raise _as_ours(error) from error
            if _PROVIDER not in session.get_providers():  # what it needs could not be loaded; it has gone on without
                raise BackendError(
                    "ONNX Runtime cannot load its CUDA provider (its cuDNN or cuBLAS is missing, or the driver is too "
                    f"old); {CPU}"
                )
            self._sessions[stream] = session
        return self._sessions[stream]


class _Execution:
    """Runs a session for one size of image; its memory is ONNX Runtime's own."""

    scratch = 0
    capturable = False  # it may allocate in any run

    def __init__(self, graph: Graph, sessions: _Sessions, size: Size) -> None:
        self._graph, self._sessions, self._size = graph, sessions, size
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 3
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def enqueue(self, inputs: Sequence[int], outputs: Sequence[int], scratch: int, stream: int) -> None:
        """See `Execution`."""
        session = self._sessions.on(stream)
        binding = session.io_binding()
        for bind, specs, addresses in (
            (binding.bind_input, self._graph.inputs, inputs),
            (binding.bind_output, self._graph.outputs, outputs),
        ):
            for spec, address in zip(specs, addresses, strict=True):
                bind(spec.name, _DEVICE, 0, np.float32, spec.shape(*self._size), address)
        try:
            session.run_with_iobinding(binding, self._options)
        except Exception as error:  # ONNX Runtime has no class of its own for it
            raise _as_ours(error) from error

    def close(self) -> None:
        """Holds nothing."""


def _as_ours(error: Exception) -> BackendError:
    line = " ".join(str(error).split())[:200]
    if "Failed to allocate memory" in line or "out of memory" in line:
        return DeviceMemoryError(f"ONNX Runtime ran out of GPU memory ({line}); {CPU}")
    return BackendError(f"ONNX Runtime failed on the GPU ({line}); {CPU}")
