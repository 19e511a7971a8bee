"""Builds one plan with any TensorRT from 8.6 to 11, or TensorRT-RTX: the module that hides their differences.

Values of enums differ between versions, and names come and go, so that everything is looked up by name and only where
it exists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from condic.errors import BackendError
from condic.runtime.engine_cache import Option, Precision
from condic.runtime.tensorrt_library import TensorRt

Shape = tuple[int, ...]
ReportProgress = Callable[[str, float], bool]
"""Called with a phase and the part of it that is done, 0..1; False stops the build."""

_FLAGS: Mapping[Option, tuple[str, ...]] = {
    "version-compatible": ("VERSION_COMPATIBLE",),
    "weight-stripped": ("STRIP_PLAN", "REFIT_IDENTICAL"),
}
_OUR_MEMORY = "REQUIRE_USER_ALLOCATION"
"""TensorRT-RTX has it: without it engines allocate, which a CUDA graph cannot record."""
_SEVERAL_CONTEXTS = "PROFILE_SHARING_0806"
"""The preview feature of TensorRT 8.6 that lets an engine have several contexts at a time; later versions always do."""
_MEMORY_BY_SHAPE = "RUNTIME_ACTIVATION_RESIZE_10_10"
"""The preview feature, from 10.10 on, by which a context needs the memory of its shapes, not of the largest ones."""
_SHAPELESS = ("CONSTANT", "SHAPE", "CAST", "IDENTITY", "SHUFFLE", "SLICE", "CONCATENATION")
"""Layers of TensorRT 8.6 that compute nothing: their precision follows from their inputs."""


_TRIED: Mapping[str, tuple[str, ...]] = {"tensorrt": ("8.6",), "tensorrt-rtx": ("1.7",)}
"""Versions that have built every graph of condic."""
_TYPES = {"half": "fp16", "fp16": "fp16", "float": "fp32", "fp32": "fp32", "bf16": "bf16", "int": "int", "bool": "bool"}
"""How TensorRT writes types, in any of its versions, and how we do."""


@dataclass(frozen=True)
class Layer:
    """A layer: its name with what TensorRT says of where it comes from, its kind, and the type of what it gives."""

    name: str
    kind: str
    precision: str
    origin: str = ""


@dataclass(frozen=True)
class Plan:
    """A plan as bytes with its layers, and the timing cache that grew with it (none from RTX, which times nothing).

    `source` says whether the layers are those of the finished engine or, as a plan is readable only where it can run,
    those of the network before TensorRT joined them.
    """

    data: bytes
    layers: tuple[Layer, ...]
    source: Literal["engine", "network"]
    timing_cache: bytes | None


def knows_attention(trt: TensorRt) -> bool:
    """Whether the parser makes one layer of ONNX's `Attention`: from 10.14 on, and TensorRT-RTX."""
    return hasattr(trt.api.INetworkDefinition, "add_attention")


def is_tried(trt: TensorRt) -> bool:
    """Whether this version has been run with condic; nothing but its API is known of others."""
    return trt.version.startswith(tuple(f"{version}." for version in _TRIED[trt.flavour]))


def is_strongly_typed(trt: TensorRt) -> bool:
    """Whether types are those of the graph (10, 11, RTX) rather than TensorRT's to choose (8.6)."""
    return hasattr(trt.api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def check_options(trt: TensorRt, options: Sequence[Option]) -> None:
    """Raises BackendError for an option that this TensorRT does not have."""
    for option in options:
        names = _FLAGS.get(option, ())
        missing = [name for name in names if not hasattr(trt.api.BuilderFlag, name)]
        if missing:
            raise BackendError(f"{trt} has no {option} engines (BuilderFlag.{missing[0]}); leave that option out")
        if option == "hardware-compatible" and trt.flavour == "tensorrt-rtx":
            raise BackendError(f"{trt} builds for all GPUs from Ampere on anyway; leave out {option}")


def build_plan(
    trt: TensorRt,
    graph: bytes,
    shapes: Mapping[str, Sequence[Shape]],
    precision: Precision,
    options: Sequence[Option] = (),
    *,
    optimization_level: int | None = None,
    capability: str | None = None,
    inspect: bool = False,
    timing_cache: bytes = b"",
    progress: ReportProgress | None = None,
) -> Plan:
    """Builds the plan of a graph that `for_tensorrt` made.

    `shapes` are smallest, usual and largest by input, of inputs whose shape varies. `optimization_level`, 0 to 5, is
    how long TensorRT looks for fast kernels; None leaves it to TensorRT. `capability` names the compute capability to
    build for, where TensorRT-RTX is not to build for all from 8.0 on. `inspect` asks the finished engine for its
    layers, which needs the GPU that it is for. Raises BackendError with TensorRT's own reason.
    """
    api = trt.api
    check_options(trt, options)
    try:
        builder = api.Builder(trt.logger)
    except TypeError as error:  # 8.6 without a GPU
        raise BackendError(
            f"{trt} cannot start: {trt.last_error()}; it builds on the GPU that it builds for"
        ) from error
    network = builder.create_network(_network_flags(trt))
    parser = api.OnnxParser(network, trt.logger)
    if not parser.parse(graph):
        problems = [parser.get_error(k).desc() for k in range(parser.num_errors)]
        trt.errors.extend(problems[:1])
        raise BackendError(f"{trt} cannot parse the graph: {trt.last_error()}")
    config = builder.create_builder_config()
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
    if precision == "guarded":
        config.clear_flag(api.BuilderFlag.TF32)
    else:
        config.set_flag(api.BuilderFlag.TF32)
    if precision == "fp16" and not is_strongly_typed(trt):
        _allow_half(trt, network, config)
    if hasattr(api.BuilderFlag, _OUR_MEMORY):
        config.set_flag(getattr(api.BuilderFlag, _OUR_MEMORY))
    for feature in (_MEMORY_BY_SHAPE, *(() if is_strongly_typed(trt) else (_SEVERAL_CONTEXTS,))):
        if hasattr(api.PreviewFeature, feature):
            config.set_preview_feature(getattr(api.PreviewFeature, feature), True)
    if optimization_level is not None:
        config.builder_optimization_level = optimization_level
    for option in options:
        for name in _FLAGS.get(option, ()):
            config.set_flag(getattr(api.BuilderFlag, name))
        if option == "hardware-compatible":
            config.hardware_compatibility_level = api.HardwareCompatibilityLevel.AMPERE_PLUS
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(api.ComputeCapability, f"SM{capability.replace('.', '')}"), 0)
    if shapes:
        profile = builder.create_optimization_profile()
        for name, bounds in shapes.items():
            profile.set_shape(name, *bounds)
        config.add_optimization_profile(profile)
    cache = None if trt.flavour == "tensorrt-rtx" else _timing_cache(config, timing_cache)
    monitor = _monitor(api, progress) if progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    trt.errors.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{trt} cannot build the engine: {trt.last_error()}")
    data = bytes(plan)
    layers = engine_layers(trt, data) if inspect else _network_layers(network)
    grown = None if cache is None else bytes(cache.serialize())
    return Plan(data, layers, "engine" if inspect else "network", grown)


def refit_plan(trt: TensorRt, plan: bytes, graph: bytes) -> bytes:
    """Puts a graph's weights back into a plan that was stripped of them, which needs the GPU. Raises BackendError."""
    api = trt.api
    engine = _loaded(trt, plan)
    refitter = api.Refitter(engine, trt.logger)
    if not (api.OnnxParserRefitter(refitter, trt.logger).refit_from_bytes(graph) and refitter.refit_cuda_engine()):
        raise BackendError(f"{trt} cannot put the weights back: {trt.last_error()}")
    config = engine.create_serialization_config()
    config.clear_flag(api.SerializationFlag.EXCLUDE_WEIGHTS)
    return bytes(engine.serialize_with_config(config))


def check_plan(trt: TensorRt, plan: bytes) -> None:
    """Raises BackendError for a plan that TensorRT does not load here. Needs the GPU that it is for."""
    _loaded(trt, plan)


def engine_layers(trt: TensorRt, plan: bytes) -> tuple[Layer, ...]:
    """The layers of a finished engine, as its inspector has them. Needs the GPU that it is for."""
    inspector = _loaded(trt, plan).create_engine_inspector()
    # Not strict: 8.6 leaves the control characters that it separates layers' names with as they are.
    report = json.loads(inspector.get_engine_information(trt.api.LayerInformationFormat.JSON), strict=False)
    return tuple(_reported_layer(x) for x in report["Layers"])


def _timing_cache(config: Any, known: bytes) -> Any:
    """A configuration's timing cache, which begins with what is known, where that is of use here; None if refused."""
    for content in (known, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _loaded(trt: TensorRt, plan: bytes) -> Any:
    runtime = trt.api.Runtime(trt.logger)
    runtime.engine_host_code_allowed = True  # version-compatible plans bring code, and these are our own
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"{trt} does not load the engine: {trt.last_error()}")
    return engine


def _reported_layer(report: Mapping[str, Any] | str) -> Layer:
    """One entry of the inspector's JSON; 11 calls `DataType` what 10 calls `Format/Datatype`."""
    if isinstance(report, str):
        return Layer(report, "", "")
    given = Counter(_type_name(x.get("DataType") or x.get("Format/Datatype", "")) for x in report.get("Outputs", []))
    origin = " ".join(str(report.get(key, "")) for key in ("TacticName", "Metadata")).replace("\x1e", " ").strip()
    return Layer(report["Name"], report.get("LayerType", ""), given.most_common(1)[0][0] if given else "", origin)


def _network_layers(network: Any) -> tuple[Layer, ...]:
    layers = []
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        output = layer.get_output(0)
        kind = str(layer.type).rpartition(".")[2].lower().replace("_", " ")
        layers.append(Layer(layer.name, kind, _type_name(str(output.dtype).rpartition(".")[2]) if output else ""))
    return tuple(layers)


def _type_name(text: str) -> str:
    """ "Row major linear FP16 format", "Half" and "HALF" are fp16."""
    words = text.lower().replace("(", " ").split()
    return next((ours for word in words for theirs, ours in _TYPES.items() if word.startswith(theirs)), text)


def _network_flags(trt: TensorRt) -> int:
    """Strong typing where there is such a thing; 8.6 wants to be told of the batch dimension."""
    flags = trt.api.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED if is_strongly_typed(trt) else flags.EXPLICIT_BATCH)


def _allow_half(trt: TensorRt, network: Any, config: Any) -> None:
    """Lets 8.6 run in half precision, but for what the graph has in single: its end, where rounding would show."""
    api = trt.api
    config.set_flag(api.BuilderFlag.FP16)
    config.set_flag(api.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    shapeless = {getattr(api.LayerType, name) for name in _SHAPELESS}
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        outputs = [layer.get_output(n) for n in range(layer.num_outputs)]
        if layer.type not in shapeless and all(x.dtype == api.DataType.FLOAT for x in outputs):
            layer.precision = api.DataType.FLOAT


def _monitor(api: Any, progress: ReportProgress) -> Any:
    """TensorRT's progress monitor (10 and later): reports the outermost phase that has steps."""
    if not hasattr(api, "IProgressMonitor"):
        return None

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = max(steps, 1)

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            return progress(phase, min(1.0, (step + 1) / self.steps.get(phase, step + 1)))

    return Monitor()
