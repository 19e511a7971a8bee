"""The manifest: a codec as data. Graphs, latents with their coding schedules, and the order in which to run them.

Nothing downstream knows a codec by name: the runtime executes these step lists.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from condic.kernels import StridedBox
from condic.runtime.typed_json import typed

FORMAT_VERSION = 0
WHOLE = 2**16
"""A halo that reaches beyond every edge: there are no tiles."""
QUALITY_LEVELS = 64
Size = tuple[int, int]
"""Height and width in pixels."""
Kind = Literal["encode", "decode", "preview", "large_preview"]
"""Step lists."""


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output, float32 [1, channels, H/stride, W/stride]; stride 0 means [1, channels, 1, 1]."""

    name: str
    channels: int
    stride: int

    def shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Its shape for an image of this padded size."""
        if not self.stride:
            return 1, self.channels, 1, 1
        return 1, self.channels, height // self.stride, width // self.stride


@dataclass(frozen=True)
class Graph:
    """One ONNX file.

    `exact` graphs give the same bits on every backend, `float` ones need not. Nor need `guarded` ones, but they are on
    the entropy path and run in float32 whatever a backend likes.

    `halo` is how far an output reaches into the input, in units of the alignment. `known_answer` is the SHA-256 of an
    exact graph's outputs (as int32) on the inputs stored in the tables.
    """

    role: str
    file: str
    precision: Literal["exact", "float", "guarded"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    halo: int
    known_answer: str | None = None


@dataclass(frozen=True)
class Box:
    """Elements of a latent: channels [begin, end), and of each `period`-th row and column those at the given phase.

    `contiguous`: rows and columns are cut into `period` parts instead, and the phase says which part.
    """

    channels: tuple[int, int]
    row_phase: int
    column_phase: int
    period: int
    contiguous: bool = False

    def on(self, height: int, width: int) -> StridedBox:
        """The box on a latent of this size, whose sides are multiples of `period`."""
        rows, columns = (
            (phase * (size // self.period), (phase + 1) * (size // self.period), 1)
            if self.contiguous
            else (phase, size, self.period)
            for phase, size in ((self.row_phase, height), (self.column_phase, width))
        )
        return StridedBox(*self.channels, *rows, *columns)


@dataclass(frozen=True)
class Chunk:
    """What is coded in one go: boxes in coding order, and where mean and scale index come from.

    Either `graph` is run on the tensors named in `inputs` and gives [1, 2 C, H, W], or `table` names a table whose row
    at the quality level holds the 2 C values. The graph of a guarded latent gives the values of its only box and no
    others, and in real numbers. `residual` is a graph that runs on `residual_inputs` once the chunk is decoded and
    gives what to add to it.
    """

    boxes: tuple[Box, ...]
    graph: str | None = None
    inputs: tuple[str, ...] = ()
    table: str | None = None
    residual: str | None = None
    residual_inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deltas:
    """How close to a boundary a value must be for the encoder to note it, in steps of its quantity, 0..1/4."""

    mean: float
    index: float
    residual: float

    def describe(self) -> str:
        """The deltas, for people."""
        return ", ".join(f"{name} {delta:.1e}" for name, delta in asdict(self).items())

    def wider(self, other: Deltas) -> Deltas:
        """The larger of the two for each quantity."""
        return Deltas(max(self.mean, other.mean), max(self.index, other.index), max(self.residual, other.residual))


@dataclass(frozen=True)
class Guard:
    """How the real numbers of a guarded latent become integers.

    Means are rounded to multiples of `mean_step` / 16, residuals to multiples of `residual_step` / 16, scale indexes to
    integers. `deltas` were measured at `levels`, which rise: several times the largest difference between backends.
    """

    mean_step: int
    residual_step: int
    levels: tuple[int, ...]
    deltas: tuple[Deltas, ...]

    def at(self, level: int) -> Deltas:
        """The deltas of a level: the wider of those measured next below and next above it."""
        below = max(bisect_right(self.levels, level) - 1, 0)
        above = min(bisect_left(self.levels, level), len(self.levels) - 1)
        return self.deltas[below].wider(self.deltas[above])


@dataclass(frozen=True)
class Latent:
    """A latent [channels, H/stride, W/stride] and the schedule that codes it.

    Elements whose scale index is below `first_coded` are not coded. Contexts read the decoded latent (kept in
    1/16) divided by 2**context_shift, rounded, and clipped to +-context_limit. `guard` is there where graphs of its
    chunks are not exact.
    """

    name: str
    channels: int
    stride: int
    first_coded: int
    context_shift: int
    context_limit: int
    chunks: tuple[Chunk, ...]
    guard: Guard | None = None


@dataclass(frozen=True)
class Step:
    """`run`: graph `target` on the tensors `inputs`, giving `outputs`. `code`: latent `target` (see `Latent`).

    Tensors that exist from the start: `image` (encoding) and `quality.NAME`, the row of a quality table. Coding latent
    L reads `L.y` when encoding, and gives `L.context` (integers for exact graphs) and `L.hat` (reals for float ones).
    Decoding ends with the tensor `image`; that of a preview may be smaller, by the stride of the graph's output.
    """

    op: Literal["run", "code"]
    target: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Everything about a codec but its weights and tables.

    `preview` and `large_preview` make images from the first latents; the second may be empty. `scales` counts the
    entropy tables; `scale_table` tells their standard deviations, `coder_bits` the precision of their probabilities.
    `provenance` says how the weights came to be, and under which licence they are.
    """

    codec: str
    preset: str
    bundle_id: str
    alignment: int
    scales: int
    scale_table: tuple[float, ...]
    coder_bits: int
    precision: str
    graphs: tuple[Graph, ...]
    latents: tuple[Latent, ...]
    encode: tuple[Step, ...]
    decode: tuple[Step, ...]
    preview: tuple[Step, ...]
    provenance: Mapping[str, str]
    large_preview: tuple[Step, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def graph(self, role: str) -> Graph:
        """The graph with a role."""
        return next(g for g in self.graphs if g.role == role)

    def steps(self, kind: Kind) -> tuple[Step, ...]:
        """The step list of a kind; none for a preview that the model does not have."""
        steps: tuple[Step, ...] = getattr(self, kind)
        return steps

    def latent(self, name: str) -> Latent:
        """The latent with a name."""
        return next(x for x in self.latents if x.name == name)

    @property
    def name(self) -> str:
        """What people call the model: `dcic-sgp-s`."""
        return f"{self.codec}-{self.preset}"

    @property
    def tiled(self) -> bool:
        """Whether graphs can run by tiles: none needs the whole image."""
        return all(graph.halo < WHOLE for graph in self.graphs)

    @property
    def guarded(self) -> bool:
        """Whether files have a guard (see `condic.runtime.guard`)."""
        return any(x.guard for x in self.latents)

    def padded(self, height: int, width: int) -> Size:
        """An image's height and width as graphs take it, rounded up to the alignment."""
        return height + -height % self.alignment, width + -width % self.alignment

    def image_spec(self, steps: tuple[Step, ...]) -> TensorSpec:
        """The output that makes the tensor `image`; its stride is not 1 where that is smaller."""
        return next(
            spec
            for step in steps if step.op == "run"
            for name, spec in zip(step.outputs, self.graph(step.target).outputs, strict=True) if name == "image"
        )  # fmt: skip

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=1)


def is_quality_table(name: str) -> bool:
    """Whether a table has a row for each level that is a tensor of that name."""
    return name.startswith("quality.")


def is_first_table(name: str) -> bool:
    """Whether a table has the distribution of chunks without context, a row for each level."""
    return name.startswith("first.")


def parse_manifest(data: dict[str, Any]) -> Manifest:
    """A manifest from the object in manifest.json. Raises ValueError, KeyError or TypeError on what is not one."""
    if data["format_version"] != FORMAT_VERSION:
        raise ValueError(f"bundle format {data['format_version']}, this condic reads {FORMAT_VERSION}")

    manifest: Manifest = typed(Manifest, data)
    return manifest
