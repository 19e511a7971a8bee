"""One module builds with every TensorRT: tested against the names and values that each version was recorded with."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from condic.engines.builder import (
    Layer,
    build_plan,
    check_options,
    check_plan,
    engine_layers,
    is_strongly_typed,
    is_tried,
    knows_attention,
    refit_plan,
)
from condic.errors import BackendError
from condic.runtime.tensorrt_library import TensorRt

Record = dict[str, Any]
Play = Callable[[Record], TensorRt]
SHAPES = {"image": [(1, 3, 128, 128), (1, 3, 512, 768), (1, 3, 768, 768)]}


def major(recorded: Record) -> str:
    return "rtx" if "rtx" in recorded["module"] else recorded["version"].partition(".")[0]


def flags_of(played: SimpleNamespace) -> set[str]:
    return {flag.name for flag in played.config._flags}


def test_what_a_version_can_do_is_seen_by_what_it_has(recorded: Record, play: Play):
    trt = play(recorded)
    version = recorded["version"]
    assert knows_attention(trt) == (version not in ("8.6.1", "10.3.0"))
    assert is_strongly_typed(trt) == (version != "8.6.1")
    assert is_tried(trt) == (version in ("8.6.1", "1.7.1.116"))


def test_networks_are_strongly_typed_by_the_value_that_the_version_has(
    recorded: Record, play: Play, played: SimpleNamespace
):
    build_plan(play(recorded), b"", SHAPES, "exact")
    assert played.network._flags == {"8": 1 << 0, "10": 1 << 1, "11": 1 << 0, "rtx": 1 << 0}[major(recorded)]


def test_engines_have_several_contexts_and_the_level_that_was_asked_for(
    recorded: Record, play: Play, played: SimpleNamespace
):
    build_plan(play(recorded), b"", SHAPES, "exact")
    by_shape = set() if recorded["version"] in ("8.6.1", "10.3.0") else {"RUNTIME_ACTIVATION_RESIZE_10_10"}
    assert played.config._previews == by_shape | ({"PROFILE_SHARING_0806"} if major(recorded) == "8" else set())
    assert played.config.builder_optimization_level is None
    build_plan(play(recorded), b"", SHAPES, "exact", optimization_level=0)
    assert played.config.builder_optimization_level == 0


@pytest.mark.parametrize(("precision", "tf32"), [("exact", True), ("guarded", False), ("fp16", True), ("fp32", True)])
def test_only_guarded_graphs_do_without_tf32(
    recorded: Record, play: Play, played: SimpleNamespace, precision: Any, tf32: bool
):
    build_plan(play(recorded), b"", SHAPES, precision)
    assert ("TF32" in flags_of(played)) == tf32


def test_half_precision_is_a_flag_of_8_6_alone_and_single_layers_stay_single(
    recorded: Record, play: Play, played: SimpleNamespace
):
    trt = play(recorded)
    types, kinds = trt.api.DataType, trt.api.LayerType
    made = [("CONVOLUTION", types.HALF), ("CONVOLUTION", types.FLOAT), ("CAST", types.FLOAT), ("SHAPE", types.INT32)]
    played.layers = [layer(kinds[kind], dtype) for kind, dtype in made]
    build_plan(trt, b"", SHAPES, "exact")
    assert not flags_of(played) & {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    build_plan(trt, b"", SHAPES, "fp16")
    weak = major(recorded) == "8"
    assert ({"FP16", "OBEY_PRECISION_CONSTRAINTS"} <= flags_of(played)) == weak
    assert [hasattr(x, "precision") for x in played.layers] == [False, weak, False, False]


def layer(kind: Any, dtype: Any) -> SimpleNamespace:
    output = SimpleNamespace(dtype=dtype)
    return SimpleNamespace(name=f"a {kind.name}", type=kind, num_outputs=1, get_output=lambda k: output)


def test_shapes_layers_and_verbosity_reach_tensorrt(recorded: Record, play: Play, played: SimpleNamespace):
    trt = play(recorded)
    played.layers = [layer(trt.api.LayerType.CONVOLUTION, trt.api.DataType.HALF)]
    plan = build_plan(trt, b"", SHAPES, "exact")
    assert (plan.data, plan.source) == (b"a plan", "network")
    assert [x.name for x in plan.layers] == ["a CONVOLUTION"]
    assert played.profile == {"image": tuple(SHAPES["image"])}
    assert played.config.profiling_verbosity.name == "DETAILED"


def test_timing_caches_are_read_and_grow_where_anything_is_timed(recorded: Record, play: Play, played: SimpleNamespace):
    played.timing = b"more timings"
    plan = build_plan(play(recorded), b"", SHAPES, "exact", timing_cache=b"timings")
    rtx = major(recorded) == "rtx"  # where that is deprecated and does nothing
    assert played.old_timing == (None if rtx else b"timings")
    assert plan.timing_cache == (None if rtx else b"more timings")


def test_progress_is_reported_where_there_is_a_monitor(recorded: Record, play: Play):
    seen: list[tuple[str, float]] = []
    build_plan(play(recorded), b"", SHAPES, "exact", progress=lambda phase, done: not seen.append((phase, done)))
    whole = [("Building engine", done) for done in (0.25, 0.5, 0.75, 1.0)]
    assert seen == ([] if major(recorded) == "8" else whole)


def test_options_are_flags_where_the_version_has_them_and_refused_where_not(
    recorded: Record, play: Play, played: SimpleNamespace
):
    trt = play(recorded)
    build_plan(trt, b"", SHAPES, "exact", ("version-compatible",))
    assert "VERSION_COMPATIBLE" in flags_of(played)
    if major(recorded) == "8":
        with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1 has no weight-stripped engines"):
            check_options(trt, ("weight-stripped",))
    else:
        build_plan(trt, b"", SHAPES, "exact", ("weight-stripped",))
        assert trt.api.BuilderFlag.STRIP_PLAN in played.config._flags  # which 10 also calls WEIGHTLESS
        assert "REFIT_IDENTICAL" in flags_of(played)
    if major(recorded) == "rtx":
        with pytest.raises(BackendError, match="builds for all GPUs from Ampere on anyway"):
            build_plan(trt, b"", SHAPES, "exact", ("hardware-compatible",))
    else:
        build_plan(trt, b"", SHAPES, "exact", ("hardware-compatible",))
        assert played.config.hardware_compatibility_level.name == "AMPERE_PLUS"
    build_plan(trt, b"", SHAPES, "exact")
    assert played.config.hardware_compatibility_level is None


def test_tensorrt_rtx_builds_for_turing_when_told(recorded: Record, play: Play, played: SimpleNamespace):
    if major(recorded) == "rtx":
        build_plan(play(recorded), b"", SHAPES, "exact", capability="7.5")
        assert played.config._capability.name == "SM75"
        assert played.config.num_compute_capabilities == 1


def test_errors_are_one_line_with_tensorrt_s_reason(recorded: Record, play: Play, played: SimpleNamespace):
    trt = play(recorded)
    played.problems = ["In node 3 (importConv): INVALID_NODE\nwith more", "another"]
    message = failing(trt)
    assert message == f"{trt} cannot parse the graph: In node 3 (importConv): INVALID_NODE"
    played.problems, played.error = [], "IBuilder::build: no kernel In compile at /_src/optimizer.cpp:17"
    assert failing(trt) == f"{trt} cannot build the engine: IBuilder::build: no kernel"
    played.no_gpu, played.error = True, "CUDA initialization failure with error: 35"
    assert failing(trt).startswith(f"{trt} cannot start: CUDA initialization failure with error: 35; ")


def failing(trt: TensorRt) -> str:
    with pytest.raises(BackendError) as error:
        build_plan(trt, b"", SHAPES, "exact")
    return str(error.value)


REPORTS = {
    "8": [
        {"Name": "a", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma", "Outputs": [
            {"Name": "y", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP16 format"}]},
        "only a name",
    ],
    "10": [
        {"Name": "a", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma",
         "Metadata": "[ONNX Layer: b]\x1e[ONNX Layer: c]", "Outputs": [
            {"Name": "y", "Dimensions": [1, 8], "Format/Datatype": "Half"}]},
        {"Name": "__mye1", "LayerType": "wait", "Outputs": []},
    ],
    "11": [
        {"Name": "a", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma", "Outputs": [
            {"Name": "y", "Dimensions": [1, 8], "Format": "Row major linear (kLINEAR)", "DataType": "Half"}]},
    ],
}  # fmt: skip
"""What inspectors give: 11 splits the field that says type and format."""


def test_layers_of_the_engine_are_read_from_the_inspector(recorded: Record, play: Play, played: SimpleNamespace):
    report = REPORTS[{"rtx": "11"}.get(major(recorded), major(recorded))]
    played.information = json.dumps({"Layers": report})
    trt = play(recorded)
    layers = engine_layers(trt, b"a plan")
    assert (layers[0].name, layers[0].kind, layers[0].precision) == ("a", "CaskConvolution", "fp16")
    assert "sm80_xmma" in layers[0].origin
    if major(recorded) == "8":
        assert layers[1] == Layer("only a name", "", "")
    if major(recorded) == "10":
        assert layers[0].origin == "sm80_xmma [ONNX Layer: b] [ONNX Layer: c]"
        assert layers[1] == Layer("__mye1", "wait", "")
    assert build_plan(trt, b"", SHAPES, "exact", inspect=True).source == "engine"


def test_names_with_control_characters_are_read(recorded: Record, play: Play, played: SimpleNamespace):
    played.information = '{"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: b]\x1e[ONNX Layer: c]"}]}'
    (layer,) = engine_layers(play(recorded), b"a plan")
    assert layer.origin == "[ONNX Layer: b] [ONNX Layer: c]"


def test_stripped_plans_get_their_weights_back(recorded: Record, play: Play, played: SimpleNamespace):
    if major(recorded) == "8":
        pytest.skip("8.6 strips no plans")
    trt = play(recorded)
    assert refit_plan(trt, b"a small plan", b"a graph") == b"a whole plan"
    assert (played.loaded, played.refitted) == ([b"a small plan"], [b"a graph"])
    played.refits = False
    with pytest.raises(BackendError, match="cannot put the weights back"):
        refit_plan(trt, b"a small plan", b"a graph")


def test_a_plan_that_does_not_load_is_an_error(recorded: Record, play: Play, played: SimpleNamespace):
    played.rejected, played.information = b"a plan", json.dumps({"Layers": []})
    for use in (engine_layers, check_plan):
        with pytest.raises(BackendError, match="does not load the engine: Serialization assertion failed"):
            use(play(recorded), b"a plan")
        use(play(recorded), b"another plan")
