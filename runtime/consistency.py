"""Whether a bundle's step lists, schedules and tables fit together: checked once, when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.runtime.bitstream import ALPHA
from condic.runtime.guard import LARGEST_DELTA
from condic.runtime.manifest import (
    QUALITY_LEVELS,
    Chunk,
    Guard,
    Latent,
    Manifest,
    Step,
    TensorSpec,
    is_first_table,
    is_quality_table,
)

CODER_BITS = 15
"""Precision of the entropy coder's probabilities."""
Tables = Mapping[str, npt.NDArray[Any]]
_LARGEST_ALIGNMENT, _LARGEST_STEP = 4096, 1024
_MOST_SCHEDULED = 2**24
"""Elements of a latent in a square of `alignment` pixels a side."""


def first_problem(manifest: Manifest, tables: Tables) -> str | None:
    """What is wrong first, in words, or None."""
    return next(_problems(manifest, tables), None)


def _problems(manifest: Manifest, tables: Tables) -> Iterator[str]:
    if len(manifest.bundle_id) != 64 or any(c not in "0123456789abcdef" for c in manifest.bundle_id):
        yield "the bundle id is not a SHA-256"
    if not 1 <= manifest.alignment <= _LARGEST_ALIGNMENT:
        yield f"alignment {manifest.alignment} is not in 1..{_LARGEST_ALIGNMENT}"
        return
    if odd := [name for name, table in sorted(tables.items()) if table.dtype.kind not in "iuf"]:
        yield f"table {odd[0]} holds no real numbers"
        return
    roles, names = {g.role for g in manifest.graphs}, {x.name for x in manifest.latents}
    if len(names) > ALPHA:  # the first kind of section that is no latent's
        yield f"{len(names)} latents; a file has room for {ALPHA}"
    if len(roles) != len(manifest.graphs) or len(names) != len(manifest.latents):
        yield "a role or latent appears twice"
    if missing := {"cdf", "radius"} - tables.keys():
        yield f"no table {min(missing)}"
    elif not manifest.scales == len(manifest.scale_table) == tables["radius"].size:
        yield f"{manifest.scales} scales, but {len(manifest.scale_table)} deviations and {tables['radius'].size} tables"
    if manifest.coder_bits != CODER_BITS:
        yield f"entropy tables of {manifest.coder_bits} bits; this condic codes with {CODER_BITS}"
    quality = set(filter(is_quality_table, tables))
    for name in sorted(quality):
        if tables[name].ndim != 2 or tables[name].shape[0] != QUALITY_LEVELS:
            yield f"table {name} has shape {tables[name].shape}, not ({QUALITY_LEVELS}, channels)"
    for graph in manifest.graphs:
        if graph.halo < 0:
            yield f"graph {graph.role}: a halo of {graph.halo}"
        if (graph.precision == "exact") != (graph.known_answer is not None):
            yield f"graph {graph.role}: exact graphs, and only they, have a known answer"
        for x in graph.inputs if graph.precision == "exact" else ():
            if f"known.{graph.role}.{x.name}" not in tables:
                yield f"no table known.{graph.role}.{x.name}"
    for latent in manifest.latents:
        yield from _latent_problems(latent, manifest, tables)
    lists = {"encode": manifest.encode, "decode": manifest.decode, "preview": manifest.preview}
    if manifest.large_preview:
        lists["large_preview"] = manifest.large_preview
    for kind, steps in lists.items():
        yield from _step_problems(kind, steps, manifest, quality)
    for kind, steps in lists.items():
        yield from _shape_problems(kind, steps, manifest, tables)
    coded = {kind: [s.target for s in steps if s.op == "code"] for kind, steps in lists.items()}
    if sorted(coded["decode"]) != sorted(names):
        yield f"decoding codes {', '.join(coded['decode'])}; there are {', '.join(sorted(names))}"
    if coded["encode"] != coded["decode"]:
        yield "encoding and decoding do not code the same latents in the same order"
    for kind in ("preview", "large_preview"):
        if coded.get(kind, []) != coded["decode"][: len(coded.get(kind, []))]:
            yield "the preview needs latents that are not the first ones of the file"


def _latent_problems(latent: Latent, manifest: Manifest, tables: Tables) -> Iterator[str]:
    if latent.channels < 1 or latent.stride < 1 or manifest.alignment % latent.stride:
        yield f"latent {latent.name}: {latent.channels} channels at 1/{latent.stride}"
        return
    limits = {"first_coded": 256, "context_shift": 20, "context_limit": 2**24}
    for name, limit in limits.items():
        if not 0 <= getattr(latent, name) <= limit:
            yield f"latent {latent.name}: {name} {getattr(latent, name)} is not in 0..{limit}"
    if latent.guard:
        yield from _guard_problems(latent, latent.guard)
    side = manifest.alignment // latent.stride
    if latent.channels * side**2 > _MOST_SCHEDULED:
        yield f"latent {latent.name}: more than {_MOST_SCHEDULED} elements in its schedule"
        return
    times = np.zeros((latent.channels, side, side), np.int64)
    for chunk in latent.chunks:
        for box in chunk.boxes:
            begin, end = box.channels
            if not (0 <= begin < end <= latent.channels and 1 <= box.period <= side and side % box.period == 0
                    and 0 <= box.row_phase < box.period and 0 <= box.column_phase < box.period):  # fmt: skip
                yield f"latent {latent.name}: box {box} is outside"
                return
            times[box.on(side, side).slices] += 1
        yield from _chunk_problems(latent, chunk, manifest, tables)
    if not (times == 1).all():
        yield f"latent {latent.name}: the schedule does not code every element once"


def _chunk_problems(latent: Latent, chunk: Chunk, manifest: Manifest, tables: Tables) -> Iterator[str]:
    """Where mean and scale index come from: a table, or a graph; that of a guarded latent is for one box alone."""
    if not chunk.boxes:
        yield f"latent {latent.name}: a chunk without a box"
        return
    (begin, end), period = chunk.boxes[0].channels, chunk.boxes[0].period
    width, stride = (end - begin, latent.stride * period) if latent.guard else (latent.channels, latent.stride)
    if chunk.residual is not None and not latent.guard:
        yield f"latent {latent.name}: residuals need a guard"
    if latent.guard and (chunk.graph or chunk.residual) and len(chunk.boxes) != 1:
        yield f"latent {latent.name}: a guarded chunk has {len(chunk.boxes)} boxes"
    if (chunk.graph is None) == (chunk.table is None):
        yield f"latent {latent.name}: a chunk needs either a graph or a table"
    elif chunk.table is not None:
        table = tables.get(chunk.table)
        if table is None or table.shape != (QUALITY_LEVELS, 2 * latent.channels):
            yield f"latent {latent.name}: no table {chunk.table} of shape ({QUALITY_LEVELS}, {2 * latent.channels})"
        if not is_first_table(chunk.table):
            yield f"latent {latent.name}: table {chunk.table} is not called first.NAME, as those of latents are"
    else:
        yield from _graph_problems(latent, chunk.graph or "", chunk.inputs, (2 * width, stride), manifest)
    if chunk.residual is not None:
        yield from _graph_problems(latent, chunk.residual, chunk.residual_inputs, (width, stride), manifest)


def _graph_problems(
    latent: Latent, role: str, inputs: tuple[str, ...], output: tuple[int, int], manifest: Manifest
) -> Iterator[str]:
    """A graph of a chunk: it is on the entropy path and gives channels at a stride, `output`, and nothing else."""
    precisions = {"exact", "guarded"} if latent.guard else {"exact"}
    graph = next((x for x in manifest.graphs if x.role == role and x.precision in precisions), None)
    if graph is None:
        yield f"latent {latent.name}: {role} is not {'a guarded' if latent.guard else 'an exact'} graph of this bundle"
        return
    if [(x.channels, x.stride) for x in graph.outputs] != [output]:
        yield f"latent {latent.name}: {role} does not give {output[0]} channels at 1/{output[1]}"
    if len(inputs) != len(graph.inputs):
        yield f"latent {latent.name}: {role} is given {len(inputs)} tensors"


def _guard_problems(latent: Latent, guard: Guard) -> Iterator[str]:
    if not all(1 <= step <= _LARGEST_STEP for step in (guard.mean_step, guard.residual_step)):
        yield f"latent {latent.name}: its guard has a step that is not in 1..{_LARGEST_STEP}, in units of 1/16"
    if not guard.levels or len(guard.levels) != len(guard.deltas) or list(guard.levels) != sorted(set(guard.levels)):
        yield f"latent {latent.name}: its guard does not have one set of deltas for each of some rising levels"
    if not all(0 <= x <= LARGEST_DELTA for delta in guard.deltas for x in (delta.mean, delta.index, delta.residual)):
        yield f"latent {latent.name}: a delta of its guard is not in 0..1/4"


def _step_problems(kind: str, steps: tuple[Step, ...], manifest: Manifest, quality: set[str]) -> Iterator[str]:
    known = quality | ({"image"} if kind == "encode" else set())
    inexact = known - quality  # may differ between backends
    guarded: set[str] = set()  # the same only where they are rounded under a guard
    for step in steps:
        if step.op == "run":
            if step.target not in {g.role for g in manifest.graphs}:
                yield f"{kind}: no graph {step.target}"
                return
            graph = manifest.graph(step.target)
            if (len(step.inputs), len(step.outputs)) != (len(graph.inputs), len(graph.outputs)):
                yield f"{kind}: {step.target} takes {len(graph.inputs)} tensors and gives {len(graph.outputs)}"
            needed: list[str] = list(step.inputs)
            if graph.precision == "float" or inexact.intersection(step.inputs):
                inexact |= set(step.outputs)
            elif graph.precision == "guarded" or guarded.intersection(step.inputs):
                guarded |= set(step.outputs)
        elif step.op == "code" and step.target in {x.name for x in manifest.latents}:
            latent = manifest.latent(step.target)
            own = {f"{latent.name}.context", f"{latent.name}.hat"}
            needed = [
                name for chunk in latent.chunks for name in (*chunk.inputs, *chunk.residual_inputs) if name not in own
            ]
            if depends := [name for name in needed if name in (inexact if latent.guard else inexact | guarded)]:
                yield f"{kind}: latent {latent.name} depends on {depends[0]}, which backends compute differently"
            needed += [f"{latent.name}.y"] if kind == "encode" else []
        else:
            yield f"{kind}: step {step.op} {step.target} is unknown"
            return
        if unknown := [name for name in needed if name not in known]:
            yield f"{kind}: {step.target} needs {unknown[0]} before it exists"
        made = [*step.outputs] if step.op == "run" else [f"{step.target}.context", f"{step.target}.hat"]
        if again := [name for k, name in enumerate(made) if name in known or name in made[:k]]:
            yield f"{kind}: {step.target} makes {again[0]}, which exists already"
        known |= set(made)
    if kind != "encode" and "image" not in known:
        yield f"{kind}: no step makes the image"


def _shape_problems(kind: str, steps: tuple[Step, ...], manifest: Manifest, tables: Tables) -> Iterator[str]:
    """Tensors whose channels or strides are not those that their readers take; all names are known to be there."""
    found = {name: (table.shape[1], 0) for name, table in tables.items() if is_quality_table(name)}
    found["image"] = (3, 1)

    def misfits(reader: str, names: tuple[str, ...], wanted: tuple[TensorSpec, ...]) -> Iterator[str]:
        for name, x in zip(names, wanted, strict=True):
            channels, stride = found[name]
            if (channels, stride) != (x.channels, x.stride):
                yield (
                    f"{kind}: {reader} takes {x.channels} channels at 1/{x.stride} as {x.name}; {name} has {channels} "
                    f"at 1/{stride}"
                )

    for step in steps:
        if step.op == "run":
            graph = manifest.graph(step.target)
            yield from misfits(step.target, step.inputs, graph.inputs)
            found |= {name: (x.channels, x.stride) for name, x in zip(step.outputs, graph.outputs, strict=True)}
            continue
        latent = manifest.latent(step.target)
        own = TensorSpec(latent.name, latent.channels, latent.stride)
        if kind == "encode":
            yield from misfits(f"latent {latent.name}", (f"{latent.name}.y",), (own,))
        found |= {f"{latent.name}.{form}": (own.channels, own.stride) for form in ("hat", "context")}
        for chunk in latent.chunks:
            for role, inputs in ((chunk.graph, chunk.inputs), (chunk.residual, chunk.residual_inputs)):
                if role is not None:
                    yield from misfits(role, inputs, manifest.graph(role).inputs)
    channels, stride = found["image"]
    if channels != 3 or (kind == "decode" and stride != 1):
        yield f"{kind}: the image has {channels} channels at 1/{stride}"
