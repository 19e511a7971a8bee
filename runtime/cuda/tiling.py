"""Tiles that graphs take which do not take the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from condic.errors import SizeError
from condic.runtime.backends import Runner
from condic.runtime.cuda.graph import device_graph
from condic.runtime.manifest import Manifest, Size, Step
from condic.runtime.tiles import is_kept_whole

_SIDES = (2048, 1024, 512, 256, 128)


def reach(manifest: Manifest, steps: Sequence[Step]) -> int:
    """By how much, on each side, a region that a graph is run on exceeds a tile at most, in units of the alignment.

    See `condic.runtime.tiles`: inputs are computed over a region and its halo, unless they are kept whole.
    """
    producers = {name: step for step in steps if step.op == "run" for name in step.outputs}

    def below(step: Step) -> int:
        halo = manifest.graph(step.target).halo
        computed = [
            producers[name]
            for name in step.inputs
            if name in producers and not is_kept_whole(name, manifest.graph(producers[name].target))
        ]
        return halo + max(map(below, computed), default=0)

    alone = max(graph.halo for graph in manifest.graphs)  # those of chunks read what is there
    return max(alone, *(below(step) for step in steps if step.op == "run"))


def fitting_tile(manifest: Manifest, size: Size, load: Callable[[str], Runner]) -> int | None:
    """The largest side of a tile that every graph takes; None where graphs take the whole padded image.

    Raises SizeError if there is none.
    """
    graphs = [device_graph(load(graph.role)) for graph in manifest.graphs]
    if all(graph.takes(size) for graph in graphs):
        return None
    region, tried = size, ""
    margin = 2 * manifest.alignment * max(reach(manifest, steps) for steps in (manifest.encode, manifest.decode))
    for side in [side for side in _SIDES if side % manifest.alignment == 0 and manifest.tiled]:
        region = min(size[0], side + margin), min(size[1], side + margin)
        if all(graph.takes(region) for graph in graphs):
            return side
        tried = f", nor by tiles of {side} pixels with what is around them, {region[1]}x{region[0]} in all"
    lacking = next(graph for graph in graphs if not graph.takes(region))
    try:
        lacking.prepare(region)
    except SizeError as error:
        raise SizeError(f"an image of {size[1]}x{size[0]} cannot run whole{tried}: {error}") from error
    raise AssertionError(f"graph {lacking.graph.role} prepares a size that it says it does not take")
