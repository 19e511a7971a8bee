"""Records what a TensorRT's Python module calls things, for tests/engines: `record_tensorrt_api.py MODULE >> FILE`.

    pip download --no-deps --only-binary=:all: tensorrt-bindings==8.6.1     (or tensorrt-cu12-bindings==10.3.0, ...)
    python record_tensorrt_api.py tensorrt_bindings >> tensorrt_apis.jsonl

The bindings' wheels hold no TensorRT. They import where libnvinfer, libnvonnxparser, libnvinfer_plugin and libnvparsers
are found, whatever is in these: a library of functions that return 0, under the names that `nm -D --undefined-only`
lists, is enough to read the names and values of enums and the members of classes.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

ENUMS = (
    "BuilderFlag", "ComputeCapability", "DataType", "DynamicShapesKernelSpecializationStrategy",
    "ExecutionContextAllocationStrategy", "HardwareCompatibilityLevel", "LayerInformationFormat", "LayerType",
    "NetworkDefinitionCreationFlag", "PreviewFeature", "ProfilingVerbosity", "SerializationFlag",
)  # fmt: skip
CLASSES = (
    "Builder", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "ILayer", "ILogger",
    "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "IRuntimeConfig", "ISerializationConfig",
    "ITensor", "ITimingCache", "OnnxParser", "OnnxParserRefitter", "ParserError", "Refitter", "Runtime",
)  # fmt: skip


def recorded(api: Any) -> dict[str, Any]:
    """Version, enums with their values, and members of classes; what a version does not have is left out."""
    return {
        "module": api.__name__,
        "version": api.__version__,
        "enums": {
            name: {member: int(value) for member, value in getattr(api, name).__members__.items()}
            for name in ENUMS
            if hasattr(api, name)
        },
        "classes": {
            name: [x for x in dir(getattr(api, name)) if not x.startswith("_")]
            for name in CLASSES
            if hasattr(api, name)
        },
    }


if __name__ == "__main__":
    print(json.dumps(recorded(importlib.import_module(sys.argv[1]))))
