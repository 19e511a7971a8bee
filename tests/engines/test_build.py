"""Engines are built once, kept, and built again when they are damaged, foreign, or of another graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("onnx")

from condic.engines import build
from condic.engines.build import Built, Order, build_engines, target_of
from condic.engines.gpu import Gpu
from condic.errors import BackendError
from condic.runtime.bundle import Bundle
from condic.runtime.engine_cache import PROFILES, Engine, Profile, Search, Target, read_engine, write_engine
from condic.runtime.tensorrt_library import TensorRt

ORIN = Gpu("Orin", "8.7")
LINE = Path(__file__).parents[1] / "data" / "tensorrt_apis.jsonl"
Run = Callable[..., list[Built]]


@pytest.fixture
def versions() -> dict[str, Any]:
    records = map(json.loads, LINE.read_text().splitlines())
    return {x["version"]: x for x in records}


@pytest.fixture
def run(bundle: Bundle, tmp_path: Path, play: Callable[[Any], TensorRt], versions: dict[str, Any]) -> Run:
    """`run()`: engines of two graphs of preset t, one of them with attention, for an Orin with TensorRT 10.16."""
    chosen = replace(bundle.manifest, graphs=tuple(bundle.manifest.graph(x) for x in ("hyper_synthesis", "synthesis")))

    def run(version: str = "10.16.1.11", gpu: Gpu | None = ORIN, source: Bundle | None = None, **order: Any) -> Any:
        built: list[Built] = []
        order = {"folder": tmp_path, "profiles": [PROFILES["512"]]} | order
        source = replace(source or bundle, manifest=replace((source or bundle).manifest, graphs=chosen.graphs))
        trt = play(versions[version])
        build_engines(source, Order(**order), trt, gpu, built.append, lambda *_: lambda *_: True)
        return built

    return run


@pytest.fixture(autouse=True)
def _fused(played: SimpleNamespace) -> None:
    """What inspectors say of these engines: one kernel for the block of attention."""
    origin = " ".join(f"[ONNX Layer: attention_0.{part}]" for part in ("scores", "softmax", "values"))
    played.information = json.dumps({"Layers": [{"Name": "_gemm_mha_v2", "LayerType": "kgen", "Metadata": origin}]})


def test_engines_are_built_once_and_kept(run: Run, played: SimpleNamespace):
    first = run()
    assert [(x.key.role, x.key.precision, x.done, x.reason) for x in first] == [
        ("hyper_synthesis", "exact", "built", ""), ("synthesis", "fp32", "built", ""),
    ]  # fmt: skip
    assert [len(x.attention) for x in first] == [0, 1]
    played.error = "nothing is built now"
    second = run()
    assert [x.done for x in second] == ["kept", "kept"]
    assert [x.path for x in second] == [x.path for x in first]


def test_an_engine_that_tensorrt_does_not_take_is_built_again(run: Run, played: SimpleNamespace):
    """As another build of one version may do."""
    run()
    played.rejected, played.plan = b"a plan", b"another plan"
    assert [(x.done, x.reason) for x in run()] == [
        ("built", "TensorRT 10.16.1.11 does not load the engine: Serialization assertion failed")
    ] * 2
    assert [x.done for x in run()] == ["kept", "kept"]


def test_engines_are_built_again_where_that_is_ordered(run: Run):
    run()
    assert [(x.done, x.reason) for x in run(rebuild=True)] == [("built", "as ordered")] * 2


def test_the_runtime_finds_what_was_built(run: Run, bundle: Bundle, tmp_path: Path):
    built = run()
    target = Target("Orin", "8.7", "tensorrt", "10.16.1.11")
    for engine in built:
        precisions = ("exact", "fp16", "fp32")
        found = Search(tmp_path, bundle.manifest.bundle_id, engine.key.role, precisions, target, (512, 640)).read()
        assert found == read_engine(engine.path)
        assert found.plan == b"a plan"


def test_a_damaged_engine_is_built_again(run: Run):
    path = run()[1].path
    path.write_bytes(path.read_bytes()[:-1])
    first, second = run()
    assert (first.done, second.done) == ("kept", "built")
    assert "damaged" in second.reason
    assert read_engine(path).plan == b"a plan"


@pytest.mark.parametrize(
    ("gpu", "version", "reason"),
    [
        (
            Gpu("NVIDIA A100", "8.0"),
            "10.16.1.11",
            "built for TensorRT 10.16.1.11 on Orin (8.7), this is TensorRT 10.16",
        ),
        (ORIN, "11.4.0.106", "built for TensorRT 10.16.1.11 on Orin (8.7), this is TensorRT 11.4.0.106"),
    ],
)
def test_an_engine_of_another_gpu_or_version_is_built_again_and_said(run: Run, gpu: Gpu, version: str, reason: str):
    run()
    assert all(x.done == "built" and reason in x.reason for x in run(version, gpu))
    assert [x.done for x in run()] == ["kept", "kept"], "the other's is still there"


def test_an_engine_of_a_changed_graph_is_built_again(run: Run, bundle: Bundle):
    run()
    graphs = dict(bundle.graphs) | {"synthesis": bundle.graphs["prior_synthesis"]}
    first, second = run(source=replace(bundle, graphs=graphs))
    assert (first.done, second.done, second.reason) == ("kept", "built", "the graph has changed")


def test_each_profile_and_each_option_has_its_engine(run: Run):
    both = run(profiles=[PROFILES["512"], PROFILES["4k"]])
    assert [str(x.key.profile) for x in both] == ["512", "4k", "512", "4k"]
    assert [x.done for x in run(options=("version-compatible",))] == ["built", "built"]


def test_sides_are_rounded_up_to_what_images_are_padded_to(run: Run, played: SimpleNamespace):
    (exact, _) = run(profiles=[Profile((1, 100), (500, 700), (1080, 1920))])
    assert exact.key.profile == Profile((128, 128), (512, 768), (1152, 1920))
    shapes = played.profile["main"]  # of the synthesis, at 1/16
    assert [shape[2:] for shape in shapes] == [(8, 8), (32, 48), (72, 120)]


def test_timings_are_kept_between_builds(run: Run, played: SimpleNamespace):
    played.timing = b"timings"
    run()
    assert played.old_timing == b"timings", "the second graph's build knew the first one's"
    run("11.4.0.106")
    assert played.old_timing == b"timings"
    played.timing = b""
    run(gpu=Gpu("NVIDIA A100", "8.0"))
    assert played.old_timing == b"", "another GPU has timings of its own"


def test_timings_that_do_not_fit_are_replaced(run: Run, played: SimpleNamespace):
    played.timing, played.fits = b"timings", False
    run()
    assert played.old_timing == b"", "the second graph's build began anew"
    played.timing, played.fits = b"new ones", True
    run(rebuild=True)
    run(rebuild=True)
    assert played.old_timing == b"new ones"


def test_another_optimization_level_builds_again_and_none_in_particular_does_not(run: Run, played: SimpleNamespace):
    assert [x.done for x in run()] == ["built"] * 2
    again = run(optimization_level=2)
    assert [x.reason for x in again] == ["it was built at no particular optimization level"] * 2
    assert played.config.builder_optimization_level == 2
    assert [x.done for x in run(optimization_level=2) + run()] == ["kept"] * 4
    assert run(optimization_level=0)[0].reason == "it was built at another optimization level"
    assert played.config.builder_optimization_level == 0


def test_unfused_attention_fails_under_require_fused_and_is_not_kept(run: Run, played: SimpleNamespace):
    assert [x.fused for x in run(require_fused=True)[1].attention] == ["fused"]
    layers = [
        {"Name": x, "LayerType": "gemm", "Metadata": f"[ONNX Layer: attention_0.{x}]"} for x in ("scores", "values")
    ]
    played.information = json.dumps({"Layers": layers})
    assert [x.fused for x in run(profiles=[PROFILES["4k"]])[1].attention] == ["not fused"]
    for name in ("4k", "1080p", "1080p"):
        with pytest.raises(BackendError, match="synthesis: attention 0 is not known to be one kernel") as error:
            run(profiles=[PROFILES[name]], require_fused=True)
        assert "2 layers" in str(error.value)
        assert "--fp16" in str(error.value)


def test_a_stripped_engine_gets_its_weights_back_instead_of_being_built(run: Run, played: SimpleNamespace):
    stripped = run(options=("weight-stripped",))
    assert [x.done for x in stripped] == ["built", "built"]
    completed = run()
    assert [x.done for x in completed] == ["refitted", "refitted"]
    assert read_engine(completed[0].path).plan == b"a whole plan"
    assert completed[0].key.options == ()
    assert [x.done for x in run(options=("weight-stripped", "version-compatible"))] == ["built", "built"]
    assert [x.done for x in run(options=("version-compatible", "weight-stripped"))] == ["kept", "kept"]
    assert [x.done for x in run(options=("version-compatible", *["weight-stripped"] * 2))] == ["kept", "kept"]
    assert [x.done for x in run(options=("version-compatible",))] == ["refitted", "refitted"]
    assert [x.done for x in run(optimization_level=5)] == ["built", "built"], "the stripped one was of another level"
    for engine in completed:
        engine.path.unlink()
    played.refits = False
    assert [x.done for x in run()] == ["built", "built"]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ("no dedicated kernel", "TensorRT has no kernel of its own for it"),
        ("unknown operator", "unknown operator"),
    ],
)
def test_an_attention_without_a_kernel_is_taken_apart_with_the_reason(
    run: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, refusal: str, reason: str
):
    """As TensorRT does it: `Attention` is refused, what it is made of is not."""
    real = build.build_plan

    def refusing(trt: TensorRt, graph: bytes, *rest: Any, **options: Any) -> Any:
        if b'"\tAttention' in graph:
            raise BackendError(refusal)
        return real(trt, graph, *rest, **options)

    monkeypatch.setattr(build, "build_plan", refusing)
    graphs = dict(bundle.graphs) | {"synthesis": _attention()}
    _, engine = run(source=replace(bundle, graphs=graphs))
    assert [(x.fused, x.reason) for x in engine.attention] == [("not fused", reason)]
    with pytest.raises(BackendError, match=f"synthesis: {refusal}"):
        run(source=replace(bundle, graphs=graphs), require_fused=True, profiles=[PROFILES["4k"]])


def _attention() -> bytes:
    """A graph that is one `Attention` with two heads."""
    from onnx import TensorProto, helper

    shapes = {"q": ["w", 2, 16, 8], "k": ["w", 2, 16, 8], "v": ["w", 2, 16, 8], "bias": [1, 2, 16, 16]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    node = helper.make_node("Attention", list(shapes), ["y"], "whole", scale=0.1)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["q"])
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 23)], ir_version=10
    )
    return bytes(model.SerializeToString())


def test_the_full_tensorrt_needs_the_gpu_and_rtx_does_not(play: Callable[[Any], TensorRt], versions: dict[str, Any]):
    with pytest.raises(BackendError, match="builds engines on the GPU that they are for, and there is none here"):
        target_of(play(versions["10.3.0"]), None)
    assert target_of(play(versions["10.3.0"]), ORIN) == Target("Orin", "8.7", "tensorrt", "10.3.0")
    rtx = play(versions["1.7.1.116"])
    for gpu in (None, ORIN, Gpu("NVIDIA H200", "9.0")):
        assert target_of(rtx, gpu) == Target("", "8.0", "tensorrt-rtx", "1.7.1.116")
    assert target_of(rtx, Gpu("Tesla T4", "7.5")) == Target("Tesla T4", "7.5", "tensorrt-rtx", "1.7.1.116")


def test_an_engine_written_by_hand_for_another_graph_is_not_kept(run: Run, tmp_path: Path):
    built = run()[0]
    write_engine(tmp_path, Engine(built.key, b"another plan", read_engine(built.path).notes | {"graph": "0" * 64}))
    assert run()[0].reason == "the graph has changed"
