"""Where memory runs out: smaller tiles, then one clear line."""

from __future__ import annotations

import gc
import io
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condic.benchmarks.process_memory import peak
from condic.command_line import run_program
from condic.errors import BackendError, OutOfMemoryError
from condic.runtime import cli, image_files
from condic.runtime.arrays import Tensor
from condic.runtime.backends import Runner
from condic.runtime.bitstream import GUARD, read_stream
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.codec import Codec
from condic.runtime.guard import GuardReader, GuardWriter
from condic.runtime.manifest import WHOLE, Graph
from condic.runtime.rate_control import encode_for
from condic.runtime.tiles import Evaluation

Drawing = Callable[..., np.ndarray]

ORT = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc")
OPENVINO = RuntimeError(
    "Exception from node.cpp:823:\n[CPU] Convolution node with name 'conv' Check 'ptr' failed at cpu_memory.cpp:257:\n"
    "Failed to allocate 215658544 bytes of memory\n\n"
)


class Memory:
    """What graphs may take: a call with more bytes of inputs and outputs than `most` has for its role fails."""

    def __init__(self) -> None:
        self.most: dict[str, float] = {}
        self.error: Exception = ORT
        self.refused = 0
        self._largest: dict[str, int] = {}

    def is_short_for(self, role: str) -> None:
        """From now on the largest call of a graph so far does not fit."""
        self.most[role] = 0.8 * self._largest[role]

    def limited(self, graph: Graph, run: Runner) -> Runner:
        """The runner within this memory."""

        def within(inputs: Sequence[Tensor]) -> list[Tensor]:
            outputs = run(inputs)
            size = sum(x.nbytes for x in (*inputs, *outputs))
            self._largest[graph.role] = max(size, self._largest.get(graph.role, 0))
            if size > self.most.get(graph.role, np.inf):
                self.refused += 1
                raise type(self.error)(*self.error.args)  # the one that is kept would keep frames
            return outputs

        return within


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Of the codecs that a test opens."""
    pytest.importorskip("onnxruntime")
    from condic.runtime.backends.ort import OrtBackend

    memory, load = Memory(), OrtBackend.load
    monkeypatch.setattr(
        OrtBackend, "load", lambda self, graph, bundle: memory.limited(graph, load(self, graph, bundle))
    )
    return memory


@pytest.fixture
def image(drawing: Drawing) -> np.ndarray:
    return drawing(700, 900)


def test_an_encoder_short_of_memory_takes_smaller_tiles(
    memory: Memory, bundle: Bundle, codec: Codec, image: np.ndarray
) -> None:
    short, whole = Codec(bundle, "ort"), codec.encode(image, 40)
    assert short.encode(image, 40) == whole
    memory.is_short_for("analysis")
    tiled = short.encode(image, 40)
    assert memory.refused == 2, "the whole image, and the one tile of 1024 pixels that has all of it"
    assert abs(len(whole) - len(tiled)) <= 0.002 * len(whole) + 8
    assert np.abs(codec.decode(whole).image.astype(int) - codec.decode(tiled).image).mean() < 0.1


@pytest.mark.parametrize("role", ["analysis", "synthesis"])
def test_a_model_without_tiles_is_tried_once(
    memory: Memory, bundle: Bundle, codec: Codec, drawing: Drawing, role: str
) -> None:
    graphs = tuple(replace(x, halo=WHOLE) if x.role == "synthesis" else x for x in bundle.manifest.graphs)
    whole, image = Codec(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)), "ort"), drawing(70, 90)
    memory.most, memory.error = {role: 0}, MemoryError()
    with pytest.raises(OutOfMemoryError, match=r"^not enough memory; this model has no tiles$"):
        whole.decode(whole.encode(image, 40) if role == "analysis" else codec.encode(image, 40))
    assert memory.refused == 1


@pytest.mark.parametrize("limit", [{"bpp": 0.5}, {"psnr": 16}])
def test_a_search_by_size_takes_smaller_tiles_too(
    memory: Memory, bundle: Bundle, image: np.ndarray, limit: dict[str, float]
) -> None:
    short = Codec(bundle, "ort")
    whole = encode_for(short, image, **limit)
    for role in ("analysis", "prior_analysis"):
        memory.is_short_for(role)
    tiled = encode_for(short, image, **limit)
    assert memory.refused
    assert abs(whole.quality - tiled.quality) <= 1


@pytest.mark.parametrize("role", ["hyper_synthesis", "synthesis"])
@pytest.mark.parametrize("error", [ORT, OPENVINO, MemoryError()])
def test_a_decoder_short_of_memory_takes_smaller_tiles(
    memory: Memory, bundle: Bundle, codec: Codec, image: np.ndarray, role: str, error: Exception
) -> None:
    """For latents, and for drawing, when these have been decoded."""
    short, data = Codec(bundle, "ort"), codec.encode(image, 40)
    whole = short.decode(data, latents=True)
    memory.is_short_for(role)
    memory.error = error
    (tiled,) = short.decode_many([data], latents=True)
    assert memory.refused >= 2
    assert tiled.latents_sha256() == whole.latents_sha256()
    assert np.abs(tiled.image.astype(int) - whole.image).max() <= 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ORT, "backend ort has no memory to run graph analysis ([ONNXRuntimeError] : 1 : FAIL : std::bad_alloc)"),
        (OPENVINO, "backend ort has no memory to run graph analysis (Failed to allocate 215658544 bytes of memory)"),
        (MemoryError(), "not enough memory, not even in tiles of 512 pixels a side"),
    ],
)
def test_without_memory_for_any_tile_the_error_says_so(
    memory: Memory, bundle: Bundle, image: np.ndarray, error: Exception, message: str
) -> None:
    memory.most, memory.error = {"analysis": 0}, error
    with pytest.raises(OutOfMemoryError, match=f"^{re.escape(message)}$") as refusal:
        Codec(bundle, "ort").encode(image, 40)
    assert isinstance(refusal.value, BackendError)
    assert isinstance(refusal.value, MemoryError)


def test_tiles_that_are_tried_next_are_no_larger(memory: Memory, bundle: Bundle, image: np.ndarray) -> None:
    memory.most, memory.error = {"analysis": 0}, MemoryError()
    with pytest.raises(OutOfMemoryError, match=r"not even in tiles of 256 pixels a side$"):
        Codec(bundle, "ort", tile=256).encode(image, 40)
    assert memory.refused == 1


def test_missing_memory_for_anything_else_is_an_error_of_condic(
    codec: Codec, drawing: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise MemoryError

    class Vast:
        __array__ = none

    image, photo = drawing(40, 30), io.BytesIO()
    Image.fromarray(image).save(photo, "PNG")
    (tmp_path / "a.cdic").write_bytes(codec.encode(image, 5))
    monkeypatch.setattr("condic.runtime.codec.Canvas", none)
    with pytest.raises(OutOfMemoryError, match=r"/a\.cdic: not enough memory$"):
        codec.decode(tmp_path / "a.cdic")
    monkeypatch.setattr("condic.runtime.latents.kernels.encode", none)
    for given in (image, Vast()):
        with pytest.raises(OutOfMemoryError, match=r"^not enough memory$"):
            codec.encode(given, 5)
    monkeypatch.undo()
    monkeypatch.setattr("condic.runtime.rate_control._psnr", none)
    with pytest.raises(OutOfMemoryError, match=r"^not enough memory$"):
        encode_for(codec, image, psnr=30)
    monkeypatch.setattr("condic.runtime.image_files.as_picture", none)
    with pytest.raises(OutOfMemoryError, match=r"^data: not enough memory$"):
        codec.encode(photo.getvalue(), 5)


def test_rounding_begins_anew_where_memory_runs_out(
    data_folder: Path, drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    codec, image = Codec(read_bundle(data_folder / "cic-sr-t.condic"), "ort"), drawing(140, 150)
    whole, run, made = codec.encode(image, 20), codec.graphs.run, list[GuardWriter | GuardReader]()
    expected = codec.decode(whole, latents=True)

    def once_short_of_memory() -> None:
        calls = itertools.count()

        def short(role: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
            if next(calls) == 4:
                raise MemoryError
            return run(role, inputs)

        monkeypatch.setattr(codec.graphs, "run", short)

    def begin_writing() -> GuardWriter:
        made.append(writer := GuardWriter())
        return writer

    def begin_reading() -> GuardReader:
        (guard,) = (x.payload for x in read_stream(whole).sections if x.kind == GUARD)
        made.append(reader := GuardReader(guard))
        return reader

    once_short_of_memory()
    assert codec.pack(codec.host.quantise(image, 20, begin_rounding=begin_writing)) == whole
    assert len(made) == 2
    once_short_of_memory()
    decoded = codec.decode(whole, begin_rounding=begin_reading, latents=True)
    assert len(made) == 4
    assert decoded.latents_sha256() == expected.latents_sha256()


def test_other_failures_of_a_graph_are_not_taken_for_a_lack_of_memory(
    memory: Memory, bundle: Bundle, image: np.ndarray
) -> None:
    memory.most, memory.error = {"analysis": 0}, RuntimeError("a shape that does not fit")
    with pytest.raises(BackendError, match=r"ort cannot run graph analysis \(a shape that does not fit\)") as caught:
        Codec(bundle, "ort").encode(image, 40)
    assert not isinstance(caught.value, OutOfMemoryError)
    assert memory.refused == 1


@pytest.mark.parametrize("model", ["dcic-sgp-t", "cic-sr-t"])
def test_what_an_image_took_is_let_go_at_once(model: str, data_folder: Path, drawing: Drawing) -> None:
    """And not when Python happens to look for cycles."""
    pytest.importorskip("onnxruntime")
    codec, image = Codec(read_bundle(data_folder / f"{model}.condic"), "ort"), drawing(140, 150)
    data = codec.encode(image, 20)
    uses = (
        lambda: codec.encode(image, 20), lambda: codec.decode(data), lambda: codec.preview(data),
        lambda: codec.decode(data, region=(3, 4, 5, 6)), lambda: codec.host.reconstruct(codec.host.quantise(image, 20)),
    )  # fmt: skip
    for use in uses:
        gc.collect()
        gc.disable()
        try:
            use()
            assert not [x for x in gc.get_objects() if type(x) is Evaluation]
        finally:
            gc.enable()


def test_graphs_take_turns_with_memory(bundle_path: Path) -> None:
    """Of which each would keep its own otherwise."""
    pytest.importorskip("onnxruntime")
    if not peak():
        pytest.skip("this system does not say how much memory a process takes")
    program = """if True:
        import sys
        import numpy as np
        from condic.benchmarks.process_memory import peak
        from condic.runtime.backends import ort
        from condic.runtime.codec import load_codec

        if sys.argv[2] == "apart":
            ort._share_memory = lambda: None
        codec = load_codec(sys.argv[1], "ort")
        image = np.random.default_rng(1).integers(0, 256, (700, 900, 3), np.uint8)
        before = peak()
        codec.decode(codec.encode(image, 0))
        print(peak() - before)
    """
    taken = {}
    for way in ("together", "apart"):
        command = [sys.executable, "-c", program, str(bundle_path), way]
        taken[way] = int(subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout)
    assert 0 < taken["together"] < 0.75 * taken["apart"]


@pytest.mark.parametrize(
    ("where", "message"),
    [("as_picture", "{}: not enough memory"), ("read_picture", "not enough memory")],
)
def test_a_picture_too_large_for_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: list[Path],
    where: str, message: str,
) -> None:  # fmt: skip
    """Where it is read, and anywhere else."""

    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_files, where, too_large)
    monkeypatch.setattr("sys.argv", ["condic-run", "encode", str(pictures[0]), str(tmp_path / "a.cdic")])
    with pytest.raises(SystemExit) as end:
        run_program("condic-run", cli.cli)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"condic-run: {message.format(pictures[0])}\n"
    assert not (tmp_path / "a.cdic").exists()
