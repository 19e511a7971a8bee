"""What is checked and measured on a GPU, one function each: facts as a dict, or an error that says what is wrong.

Needs no pytest and nothing beyond a plain installation and the libraries under test. `run.py` calls these one by one
and writes down what they say; `test_gpu.py` makes tests of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from bench import require

from condic.errors import BackendError
from condic.runtime.codec import Codec
from condic.runtime.cuda.pipeline import WORKSPACES
from condic.runtime.cuda.program import GraphRun, ProgramKey
from condic.runtime.cuda.workspace import LoadedProgram
from condic.runtime.manifest import QUALITY_LEVELS

Pixels = npt.NDArray[np.uint8]
Facts = dict[str, Any]

LEVELS = (0, 32, 63)
CLOSE_SHARE, CLOSE_PSNR = 0.99, 50.0
"""Pictures of two backends: so many pixels within one level, and so many dB between them."""
FLOAT_TOLERANCE = 0.05
"""Largest difference of a float graph in half precision, by the largest value that it gives."""


def check_known_answers(codec: Codec) -> Facts:
    """Every graph loads; every exact one gives its known answer."""
    start, problems = time.perf_counter(), []
    for graph in codec.bundle.manifest.graphs:
        try:
            codec.graphs.load(graph.role)
        except BackendError as error:
            problems.append(f"{graph.role}: {error}")
    require(not problems, f"{len(problems)} graphs are refused: {'; '.join(problems)}")
    exact = sum(graph.precision == "exact" for graph in codec.bundle.manifest.graphs)
    return {"graphs": len(codec.bundle.manifest.graphs), "known_answers": exact, "seconds": time.perf_counter() - start}


def check_graphs(codec: Codec, host: Codec, image: Pixels, level: int = 32) -> Facts:
    """Every graph, on the tensors that coding an image gives it, against ONNX Runtime on the CPU."""
    inputs: dict[str, list[npt.NDArray[np.float32]]] = {}
    run = host.graphs.run

    def noting(role: str, given: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
        inputs[role] = [np.array(x) for x in given]
        return run(role, given)

    host.graphs.run = noting  # type: ignore[method-assign]
    try:
        host.decode(host.encode(image, level))
    finally:
        host.graphs.run = run  # type: ignore[method-assign]
    facts: Facts = {}
    for role, given in inputs.items():
        exact = host.bundle.manifest.graph(role).precision == "exact"
        expected, got = run(role, given), codec.graphs.run(role, given)
        pairs = list(zip(got, expected, strict=True))
        worst = max(float(np.abs(a - b).max()) / max(1e-9, float(np.abs(b).max())) for a, b in pairs)
        require(all(np.isfinite(a).all() for a, _ in pairs), f"graph {role} gives values that are not finite")
        require(not exact or worst == 0, f"exact graph {role} differs from the CPU's by {worst:.2e}")
        require(worst <= FLOAT_TOLERANCE, f"graph {role} differs from the CPU's by {worst:.2e} of its largest value")
        facts[role] = worst
    return {"largest_differences": facts}


def check_cross_decoding(codec: Codec, host: Codec, images: Sequence[Pixels], levels: Sequence[int] = LEVELS) -> Facts:
    """Files of each side decode on the other: the same latents, pictures as close as they must be."""
    shares, psnrs, same = [], [], 0
    for image in images:
        for level in levels:
            files = {"GPU": codec.encode(image, level), "CPU": host.encode(image, level)}
            for name, data in files.items():
                here, there = codec.decode(data, latents=True), host.decode(data, latents=True)
                what = f"{image.shape[1]}x{image.shape[0]} at level {level}, written by the {name}"
                require(here.latents_sha256() == there.latents_sha256(), f"{what}: other latents on the other side")
                difference = here.image.astype(np.int32) - there.image
                shares.append(float((np.abs(difference) <= 1).mean()))
                psnrs.append(10 * np.log10(255**2 / max(float(np.square(difference).mean()), 1e-10)))
                require(shares[-1] >= CLOSE_SHARE, f"{what}: {shares[-1]:.4f} of the pixels within one level")
                require(psnrs[-1] >= CLOSE_PSNR, f"{what}: {psnrs[-1]:.1f} dB between the two pictures")
            same += files["GPU"] == files["CPU"]
    return {
        "files": len(shares), "share_within_one_level": min(shares), "psnr": min(psnrs),
        "files_equal_to_the_cpus": same,
    }  # fmt: skip


def check_repetition(codec: Codec, image: Pixels) -> Facts:
    """Captured programs, several images at once, and the host's coder give what the first run gave."""
    from condic.runtime.backends import BackendOptions

    first = codec.encode(image, 32)
    latents = codec.decode(first, latents=True).latents_sha256()
    for k in range(3):
        require(codec.encode(image, 32) == first, f"encoding gives other bytes in run {k + 2}")
        require(
            codec.decode(first, latents=True).latents_sha256() == latents,
            f"decoding gives other latents in run {k + 2}",
        )
    require(set(codec.encode_many([image] * 8, 32)) == {first}, "encode_many gives other bytes")
    pictures = [decoded.image for decoded in codec.decode_many([first] * 8)]
    require(all(np.array_equal(x, pictures[0]) for x in pictures), "decode_many gives several pictures")
    other = Codec(codec.bundle, codec.backend_name, BackendOptions(host_coder=True))
    try:
        require(other.encode(image, 32) == first, "the host's coder gives other bytes")
        require(other.decode(first, latents=True).latents_sha256() == latents, "the host's coder gives other latents")
    finally:
        other.close()
    return _captured(codec)


def mosaic(image: Pixels, height: int, width: int) -> Pixels:
    """An image of that size: a photograph and its reflections, none of it enlarged, so that files are as usual."""
    rows, columns = (max(0, wanted - side) for wanted, side in zip((height, width), image.shape, strict=False))
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="symmetric")[:height, :width]


def measure_single(codec: Codec, image: Pixels, level: int = 32, runs: int = 100) -> Facts:
    """Images per second, one at a time: medians; and what a program needs, without what other sizes left behind.

    The levels at the ends are decoded too: how many lanes a latent has, and so how long it takes, depends on the rate.
    """
    _forget(codec)
    data = codec.encode(image, level)

    def median(code: Callable[[], object], runs: int = runs) -> float:
        times = []
        for k in range(runs + 3):  # the first ones set up and capture
            start = time.perf_counter()
            code()
            if k >= 3:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    return {
        "size": f"{image.shape[1]}x{image.shape[0]}", "bytes": len(data),
        "encode_per_second": 1 / median(lambda: codec.encode(image, level)),
        "decode_per_second": 1 / median(lambda: codec.decode(data)),
        "decode_per_second_at": {
            str(each): 1 / median(partial(codec.decode, codec.encode(image, each)), min(runs, 20))
            for each in (0, QUALITY_LEVELS - 1)
        },
        "memory_mib": _memory_of_this_process(), "scratch_mib": _scratch(codec), "clocks": _clocks(),
        **_captured(codec),
    }  # fmt: skip


def measure_many(codec: Codec, image: Pixels, level: int = 32, runs: int = 100) -> Facts:
    """Images per second, many at once, three times."""
    data = codec.encode(image, level)

    def rates(code: Callable[[], Any]) -> list[float]:
        results = []
        for _ in range(3):
            start = time.perf_counter()
            results.append(sum(1 for _ in code()) / (time.perf_counter() - start))
        return results

    for _ in range(3):  # all workspaces at once, until each has set itself up and captured
        for finish in [codec.begin_encoding(image, level) for _ in range(WORKSPACES)]:
            finish()
    with ThreadPoolExecutor(WORKSPACES) as threads:
        for _ in range(5):
            list(threads.map(lambda _: codec.decode(data), range(WORKSPACES)))
    return {
        "size": f"{image.shape[1]}x{image.shape[0]}", "bytes": len(data),
        "encode_per_second": rates(lambda: codec.encode_many([image] * runs, level)),
        "decode_per_second": rates(lambda: codec.decode_many([data] * runs)),
        "memory_mib": _memory_of_this_process(), **_captured(codec),
    }  # fmt: skip


def measure_parts(codec: Codec, image: Pixels, level: int = 32) -> Facts:
    """Where the device's time goes, in microseconds; nothing for backends without programs."""
    facts: Facts = {}
    data = codec.encode(image, level)
    if codec._device is not None:
        height, width, channels = image.shape
        for kind, code in (("encode", lambda: codec.encode(image, level)), ("decode", lambda: codec.decode(data))):
            code()  # what is staged then is what the profile runs on
            totals: dict[str, float] = {}
            for name, seconds in codec._device.profile(
                ProgramKey(kind, height, width, channels, codec._device.host_coder)
            ):
                totals[name] = totals.get(name, 0.0) + 1e6 * seconds
            facts[f"{kind}_us"] = totals
    return facts


def measure_layers(codec: Codec, image: Pixels, level: int = 32, most: int = 12) -> Facts:
    """Where the time of TensorRT's engines goes, by its own measure: per graph, in microseconds, the sum and the layers
    that take longest. Nothing for other backends.

    The programs at hand go on under measurement, each layer by itself.
    """
    codec.decode(codec.encode(image, level))
    codec.encode(image, level)  # whose program had to make room for the larger one
    graphs = [
        x for program in _programs(codec) for segment in program.program.segments for x in segment.operations
        if isinstance(x, GraphRun) and hasattr(x.execution, "_context")
    ]  # fmt: skip
    if not graphs or codec._device is None:
        return {}
    api = graphs[0].execution._library.api  # type: ignore[attr-defined]

    class Profiler(api.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            api.IProfiler.__init__(self)
            self.layers: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers[layer_name] = 1000 * ms

    profilers = {x.role: Profiler() for x in graphs}
    for x in graphs:
        x.execution._context.profiler = profilers[x.role]  # type: ignore[attr-defined]
    height, width, channels = image.shape
    for kind in ("encode", "decode"):
        codec._device.profile(ProgramKey(kind, height, width, channels, codec._device.host_coder))
    facts: Facts = {}
    for role, profiler in profilers.items():
        longest = sorted(profiler.layers.items(), key=lambda layer: -layer[1])
        facts[role] = {"us": sum(profiler.layers.values()), "layers": len(longest), "longest": dict(longest[:most])}
    return facts


def _memory_of_this_process() -> int | None:
    """MiB on the GPU, CUDA's own included, as nvidia-smi has it; None where it does not say."""
    query = ("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
        return {int(pid): int(mib) for pid, mib in (line.split(",") for line in lines)}.get(os.getpid())
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _clocks() -> str | None:
    """Clocks of processors and memory, why they are not higher, temperature and power; None where nobody says."""
    fields = "clocks.sm,clocks.mem,clocks_throttle_reasons.active,temperature.gpu,power.draw"
    try:
        query = ("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.CalledProcessError):
        return None


def _forget(codec: Codec) -> None:
    """Lets go of all programs and their memory."""
    if (device := codec._device) is not None:
        with device._driver.entered():
            for workspace in device._idle:
                workspace.clear()


def _scratch(codec: Codec) -> Facts:
    """MiB of scratch memory that each graph wants, of the programs at hand."""
    runs = (x for program in _programs(codec) for segment in program.program.segments for x in segment.operations)
    return {x.role: x.execution.scratch / 2**20 for x in runs if isinstance(x, GraphRun)}


def _captured(codec: Codec) -> Facts:
    """How many programs there are, how many of them are captured, and why others are not."""
    programs = _programs(codec)
    return {
        "programs": len(programs), "captured": sum(program.captured for program in programs),
        "not_captured": sorted({str(program.refusal) for program in programs if program.refusal}),
    }  # fmt: skip


def _programs(codec: Codec) -> list[LoadedProgram]:
    """Those that a codec has on its device now."""
    device = codec._device
    return [] if device is None else [x for workspace in device._idle for x in workspace._programs.values()]
