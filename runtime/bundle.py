"""The bundle: what export hands to the runtime (DESIGN section 3), read and checked.

A folder or one zip file with `manifest.json`, `*.onnx` and `tables.npz`. The manifest says in which order to run the
graphs and code the latents; nothing here or downstream knows a codec by name.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from condic.errors import BundleError

FORMAT_VERSION = 0
MANIFEST, TABLES = "manifest.json", "tables.npz"
QUALITY_LEVELS = 64
_MOST_FILES = 256
_LARGEST_FILE = 2**31


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output, float32 [1, channels, H/stride, W/stride]; stride 0 means [1, channels, 1, 1]."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class Graph:
    """One ONNX file. `exact` graphs give the same bits on every backend, `float` ones need not.

    `known_answer` is the SHA-256 of an exact graph's outputs (as int32) on the inputs stored in the tables.
    """

    role: str
    file: str
    precision: Literal["exact", "float"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    known_answer: str | None = None


@dataclass(frozen=True)
class Box:
    """Elements of a latent: channels [begin, end), and of each `period`-th row and column those at the given phase."""

    channels: tuple[int, int]
    row_phase: int
    column_phase: int
    period: int


@dataclass(frozen=True)
class Chunk:
    """What is coded in one go: boxes in coding order, and where mean and scale index come from.

    Either `graph` is run on the tensors named in `inputs` and gives [1, 2 C, H, W], or `table` names a table whose row
    at the quality level holds the 2 C values.
    """

    boxes: tuple[Box, ...]
    graph: str | None = None
    inputs: tuple[str, ...] = ()
    table: str | None = None


@dataclass(frozen=True)
class Latent:
    """A latent [channels, H/stride, W/stride] and the schedule that codes it.

    Elements whose scale index is below `first_coded` are not coded. Contexts read the decoded latent (kept in
    1/16) divided by 2**context_shift, rounded, and clipped to +-context_limit.
    """

    name: str
    channels: int
    stride: int
    first_coded: int
    context_shift: int
    context_limit: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Step:
    """`run`: graph `target` on the tensors `inputs`, giving `outputs`. `code`: latent `target` (see `Latent`).

    Tensors that exist from the start: `image` (encoding) and `quality.NAME`, the row of a quality table. Coding latent
    L reads `L.y` when encoding, and gives `L.context` (integers for exact graphs) and `L.hat` (reals for float ones).
    Decoding ends with the tensor `image`.
    """

    op: Literal["run", "code"]
    target: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Everything about a codec but its weights and tables."""

    codec: str
    preset: str
    bundle_id: str
    alignment: int
    scales: int
    precision: str
    graphs: tuple[Graph, ...]
    latents: tuple[Latent, ...]
    encode: tuple[Step, ...]
    decode: tuple[Step, ...]
    preview: tuple[Step, ...]
    provenance: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def graph(self, role: str) -> Graph:
        """The graph with a role."""
        return next(g for g in self.graphs if g.role == role)

    def latent(self, name: str) -> Latent:
        """The latent with a name."""
        return next(x for x in self.latents if x.name == name)

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class Bundle:
    """A manifest with its tables (read-only arrays) and the bytes of its graphs."""

    manifest: Manifest
    tables: Mapping[str, npt.NDArray[Any]]
    graphs: Mapping[str, bytes]
    source: str

    @property
    def id(self) -> bytes:
        """The first 8 bytes of the bundle id, as files carry it."""
        return bytes.fromhex(self.manifest.bundle_id)[:8]


def read_bundle(path: Path) -> Bundle:
    """Reads and checks a bundle: a folder or a zip file. Raises BundleError, naming what is wrong."""
    try:
        files = _read_folder(path) if path.is_dir() else _read_zip(path)
        manifest = _parse_manifest(json.loads(files[MANIFEST]))
        for name, digest in manifest.files.items():
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise BundleError(f"{path}: {name} is damaged (its SHA-256 is not the manifest's); export or copy it again")
        with np.load(io.BytesIO(files[TABLES]), allow_pickle=False) as archive:
            tables = {name: archive[name] for name in archive.files}
        bundle = Bundle(manifest, tables, {g.role: files[g.file] for g in manifest.graphs}, str(path))
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no model bundle there; condic-export makes one") from error
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise BundleError(f"{path}: not a readable model bundle ({type(error).__name__}: {error})") from error
    check_bundle(bundle)
    return bundle


def write_bundle(bundle: Bundle, path: Path) -> None:
    """Writes a bundle as a zip file with fixed time stamps: the same content gives the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in bundle_files(bundle).items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def bundle_files(bundle: Bundle) -> dict[str, bytes]:
    """The files of a bundle by name, manifest first, with the manifest's digests filled in."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: bundle.tables[name] for name in sorted(bundle.tables)})
    files = {g.file: bundle.graphs[g.role] for g in bundle.manifest.graphs} | {TABLES: buffer.getvalue()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = Manifest(**{**vars(bundle.manifest), "files": digests})
    return {MANIFEST: manifest.to_json().encode()} | files


def _read_folder(path: Path) -> dict[str, bytes]:
    names = [MANIFEST, *json.loads((path / MANIFEST).read_bytes())["files"]]
    if any(Path(name).name != name for name in names):
        raise ValueError("a file name with a folder in it")
    return {name: (path / name).read_bytes() for name in names}


def _read_zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_FILES or sum(e.file_size for e in entries) > _LARGEST_FILE:
            raise ValueError("too many or too large files")
        return {e.filename: archive.read(e) for e in entries}


def _parse_manifest(data: dict[str, Any]) -> Manifest:
    if data["format_version"] != FORMAT_VERSION:
        raise ValueError(f"bundle format {data['format_version']}, this condic reads {FORMAT_VERSION}")

    def tensors(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(**row) for row in rows)

    def chunk(row: dict[str, Any]) -> Chunk:
        boxes = tuple(Box(**{**box, "channels": tuple(box["channels"])}) for box in row["boxes"])
        return Chunk(boxes, row["graph"], tuple(row["inputs"]), row["table"])

    def steps(rows: list[dict[str, Any]]) -> tuple[Step, ...]:
        return tuple(Step(r["op"], r["target"], tuple(r["inputs"]), tuple(r["outputs"])) for r in rows)

    graphs = tuple(
        Graph(**{**g, "inputs": tensors(g["inputs"]), "outputs": tensors(g["outputs"])}) for g in data["graphs"]
    )
    latents = tuple(Latent(**{**x, "chunks": tuple(map(chunk, x["chunks"]))}) for x in data["latents"])
    lists = {name: steps(data[name]) for name in ("encode", "decode", "preview")}
    return Manifest(**{**data, "graphs": graphs, "latents": latents, **lists})


def check_bundle(bundle: Bundle) -> None:
    """Checks that step lists, schedules and tables fit together; BundleError names the first thing that does not."""
    problem = next(_problems(bundle), None)
    if problem:
        raise BundleError(f"{bundle.source}: inconsistent bundle: {problem}")


def _problems(bundle: Bundle) -> Any:
    manifest, tables = bundle.manifest, bundle.tables
    if len(manifest.bundle_id) != 64 or any(c not in "0123456789abcdef" for c in manifest.bundle_id):
        yield "the bundle id is not a SHA-256"
    roles, names = {g.role for g in manifest.graphs}, {x.name for x in manifest.latents}
    if len(roles) != len(manifest.graphs) or len(names) != len(manifest.latents):
        yield "a role or latent appears twice"
    if missing := {"cdf", "radius"} - tables.keys():
        yield f"no table {min(missing)}"
    quality = {f"quality.{name[8:]}" for name in tables if name.startswith("quality.")}
    for name in sorted(quality):
        if tables[name].ndim != 2 or tables[name].shape[0] != QUALITY_LEVELS:
            yield f"table {name} has shape {tables[name].shape}, not ({QUALITY_LEVELS}, channels)"
    for latent in manifest.latents:
        yield from _latent_problems(latent, manifest, tables)
    for kind, steps in (("encode", manifest.encode), ("decode", manifest.decode), ("preview", manifest.preview)):
        yield from _step_problems(kind, steps, manifest, quality)
    coded = [[s.target for s in steps if s.op == "code"] for steps in (manifest.encode, manifest.decode, manifest.preview)]
    if coded[0] != coded[1]:
        yield "encoding and decoding do not code the same latents in the same order"
    if coded[2] != coded[1][: len(coded[2])]:
        yield "the preview needs latents that are not the first ones of the file"


def _latent_problems(latent: Latent, manifest: Manifest, tables: Mapping[str, npt.NDArray[Any]]) -> Any:
    if latent.channels < 1 or latent.stride < 1 or manifest.alignment % latent.stride:
        yield f"latent {latent.name}: {latent.channels} channels at 1/{latent.stride}"
        return
    side = manifest.alignment // latent.stride
    times = np.zeros((latent.channels, side, side), np.int64)
    for chunk in latent.chunks:
        for box in chunk.boxes:
            begin, end = box.channels
            if not (0 <= begin < end <= latent.channels and 1 <= box.period <= side and side % box.period == 0
                    and 0 <= box.row_phase < box.period and 0 <= box.column_phase < box.period):  # fmt: skip
                yield f"latent {latent.name}: box {box} is outside"
                return
            times[begin:end, box.row_phase :: box.period, box.column_phase :: box.period] += 1
        if (chunk.graph is None) == (chunk.table is None):
            yield f"latent {latent.name}: a chunk needs either a graph or a table"
        elif chunk.table is not None:
            table = tables.get(chunk.table)
            if table is None or table.shape != (QUALITY_LEVELS, 2 * latent.channels):
                yield f"latent {latent.name}: no table {chunk.table} of shape ({QUALITY_LEVELS}, {2 * latent.channels})"
        elif not any(g.role == chunk.graph and g.precision == "exact" for g in manifest.graphs):
            yield f"latent {latent.name}: {chunk.graph} is not an exact graph of this bundle"
    if not (times == 1).all():
        yield f"latent {latent.name}: the schedule does not code every element once"


def _step_problems(kind: str, steps: tuple[Step, ...], manifest: Manifest, quality: set[str]) -> Any:
    known = quality | ({"image"} if kind == "encode" else set())
    for step in steps:
        if step.op == "run":
            if step.target not in {g.role for g in manifest.graphs}:
                yield f"{kind}: no graph {step.target}"
                return
            graph = manifest.graph(step.target)
            if (len(step.inputs), len(step.outputs)) != (len(graph.inputs), len(graph.outputs)):
                yield f"{kind}: {step.target} takes {len(graph.inputs)} tensors and gives {len(graph.outputs)}"
            needed: list[str] = list(step.inputs)
        elif step.op == "code" and step.target in {x.name for x in manifest.latents}:
            latent = manifest.latent(step.target)
            own = {f"{latent.name}.context"}
            needed = [name for chunk in latent.chunks for name in chunk.inputs if name not in own]
            needed += [f"{latent.name}.y"] if kind == "encode" else []
        else:
            yield f"{kind}: step {step.op} {step.target} is unknown"
            return
        if unknown := [name for name in needed if name not in known]:
            yield f"{kind}: {step.target} needs {unknown[0]} before it exists"
        known |= set(step.outputs) if step.op == "run" else {f"{step.target}.context", f"{step.target}.hat"}
    if kind != "encode" and "image" not in known:
        yield f"{kind}: no step makes the image"
