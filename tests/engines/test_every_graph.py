"""Every graph of every codec and preset parses and builds with TensorRT-RTX, which needs no GPU for that.

Attention in half precision must come out whole: the builder refuses an `Attention` node that it has no kernel for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (extra tensorrt)")
pytest.importorskip("onnx")

from condic.engines import build
from condic.engines.build import Built, Order, build_engines
from condic.engines.graphs import Blocks, blocks_of
from condic.errors import BackendError
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.engine_cache import PROFILES
from condic.runtime.manifest import Graph, Manifest
from condic.runtime.shipped import find_bundle
from condic.runtime.tensorrt_library import find_tensorrt

Half = Callable[..., tuple[Bundle, dict[str, int]]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def built(bundle: Bundle, folder: Path, *, fused: bool) -> list[Built]:
    """All engines of a bundle, as they are built on a machine without a GPU."""
    engines: list[Built] = []
    order = Order(folder, [PROFILES["1080p"]], require_fused=fused)
    build_engines(bundle, order, find_tensorrt(), None, engines.append, lambda *_: lambda *_: True)
    return engines


@pytest.mark.parametrize("name", ["dcic-sgp-t", "cic-sr-t", "dcic-sgp-s", "cic-sr-s"])
def test_every_graph_builds_in_single_precision(name: str, data_folder: Path, tmp_path: Path):
    own = data_folder / f"{name}.condic"
    bundle = read_bundle(own if own.exists() else find_bundle(name))
    engines = built(bundle, tmp_path, fused=False)
    assert [x.key.role for x in engines] == [x.role for x in bundle.manifest.graphs]
    assert all(x.done == "built" and x.bytes > 100_000 for x in engines)
    assert all(verdict.fused == "unknown" for x in engines for verdict in x.attention)


def test_graphs_as_old_parsers_take_them_build_too(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opset 17, as TensorRT 8.6 gets it; its own parser runs only beside a GPU."""
    monkeypatch.setattr(build, "knows_attention", lambda trt: False)
    engines = built(read_bundle(data_folder / "dcic-sgp-t.condic"), tmp_path, fused=False)
    assert [x.done for x in engines] == ["built"] * 13


@pytest.fixture(scope="module")
def half() -> Half:
    """`half(codec, preset)`, or one graph of it: random weights in half precision, and blocks of attention by graph.

    Where a bundle is at hand, only float graphs are exported: the others are those of the test above.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from condic.export.build import _stored
    from condic.export.session import describe
    from condic.models import blocks, swin
    from condic.models.codecs import build_codec
    from condic.models.dcic_sgp import DcicSgp
    from condic.models.exact import observe

    def export(codec: str, preset: str, only: str = "") -> tuple[Bundle, dict[str, int]]:
        torch.manual_seed(0)
        model = build_codec(codec, preset).eval()
        if isinstance(model, DcicSgp):
            with torch.no_grad(), observe(model):
                model(torch.rand(2, 3, 128, 128), torch.tensor([0, 63]))
        source = describe(model)
        chosen = [x for x in source.graphs if x.precision == "float" or preset not in ("t", "s")]
        chosen = [x for x in chosen if only in ("", x.role)]
        graphs = tuple(Graph(x.role, f"{x.role}.onnx", x.precision, x.inputs, x.outputs, 0, 0) for x in chosen)
        manifest = Manifest(
            source.name, source.preset, "0" * 64, source.alignment, 0, (), 15, "fp16", graphs, source.latents,
            source.encode, source.decode, source.preview, {},
        )  # fmt: skip
        kinds = (blocks.ConditionAttention, swin.WindowAttention)
        counts = {x.role: sum(isinstance(m, kinds) for m in x.network.modules()) for x in chosen}
        return Bundle(
            manifest, {}, {x.role: _stored(x, source.alignment, x.precision == "float") for x in chosen}, "random"
        ), counts

    return export


@pytest.mark.parametrize("preset", ["dcic-sgp t", "dcic-sgp s", "dcic-sgp b", "cic-sr s"])
def test_half_precision_builds_with_all_attention_fused(preset: str, half: Half, tmp_path: Path):
    bundle, blocks = half(*preset.split())
    assert sum(blocks.values()) >= 2
    for role, count in blocks.items():
        assert blocks_of(bundle.graphs[role]) == Blocks(whole=count, apart=0), role
    engines = built(bundle, tmp_path, fused=True)
    assert [x.key.role for x in engines] == [x.role for x in bundle.manifest.graphs]
    assert {x.key.precision for x in engines} <= {"fp16", "exact"}
    for engine in engines:
        assert [x.fused for x in engine.attention] == ["fused"] * blocks[engine.key.role]


def test_heads_that_no_kernel_takes_are_built_in_parts_or_refused(half: Half, tmp_path: Path):
    bundle, blocks = half("cic-sr", "t", "lr_analysis")  # 8 channels a head
    with pytest.raises(BackendError, match=r"lr_analysis: .*not supported by a dedicated kernel"):
        built(bundle, tmp_path, fused=True)
    (engine,) = built(bundle, tmp_path, fused=False)
    assert [x.fused for x in engine.attention] == ["not fused"] * blocks["lr_analysis"]
    assert engine.attention[0].reason == "TensorRT has no kernel of its own for it"
