"""One run of `condic-export --engines`, or of `condic-export inspect`: work and display put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from condic.command_line import interruptions_held
from condic.engines.build import Built, Order, build_engines, target_of
from condic.engines.builder import ReportProgress, check_options, is_tried
from condic.engines.gpu import Gpu, first_gpu
from condic.engines.profiles import check_profiles
from condic.errors import InputError
from condic.files import reason
from condic.runtime.bundle import Bundle
from condic.runtime.engine_cache import RTX_GPUS, Engine, Profile, read_engine, rtx_runs_on
from condic.runtime.manifest import Graph
from condic.runtime.tensorrt_library import TensorRt, find_tensorrt


def open_session(order: Order) -> Session:
    """Finds TensorRT and the GPU, and makes the folder.

    Raises BackendError where they are missing or cannot do what is ordered, InputError for the folder.
    """
    trt, gpu = find_tensorrt(), first_gpu()
    check_options(trt, order.options)
    target_of(trt, gpu)
    try:
        order.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{order.folder}: cannot be made a folder ({reason(error)}); give another") from error
    return Session(order, trt, gpu)


@dataclass(frozen=True)
class Session:
    """What to build, and with what."""

    order: Order
    trt: TensorRt
    gpu: Gpu | None

    def build(self, bundle: Bundle) -> None:
        """Builds a bundle's engines, with progress, and prints what there is then.

        Raises BackendError for what TensorRT refuses, InputError for profiles that no engine could be used with.
        """
        check_profiles(bundle, self.order.profiles)
        console = Console(stderr=True, markup=False)
        if not is_tried(self.trt):
            console.print(f"{self.trt}: condic has not been run with this version; see docs/tensorrt.md")
        for_all = not target_of(self.trt, self.gpu).gpu  # on an older GPU, TensorRT-RTX builds for that alone
        if for_all and self.gpu and not rtx_runs_on(self.gpu.capability):
            console.print(
                f"{self.trt} does not run on this {self.gpu.name}, of compute capability {self.gpu.capability}: these "
                f"engines are for others ({RTX_GPUS}); here it takes NVIDIA's TensorRT, or --backend ort-cuda",
                soft_wrap=True,
            )
        built = self._built(bundle, console)
        console.print(_table(built))
        _print_attention(console, built)
        console.print(f"{self.trt}: {len(built)} engines in {built[0].path.parent}", soft_wrap=True)

    def _built(self, bundle: Bundle, console: Console) -> list[Built]:
        built: list[Built] = []
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[phase]}", markup=False),
            TimeElapsedColumn(),
        )
        with interruptions_held() as held, Progress(*columns, console=console, transient=True) as bar:
            whole = bar.add_task("engines", total=len(bundle.manifest.graphs) * len(self.order.profiles), phase="")
            part = bar.add_task("", total=1.0, phase="")

            def progress(graph: Graph, profile: Profile) -> ReportProgress:
                bar.reset(part, description=f"{graph.role} {profile}", phase="")

                def step(phase: str, done: float) -> bool:
                    bar.update(part, completed=done, phase=phase)
                    return not held  # Ctrl-C: an exception must not fly through TensorRT

                return step

            def report(engine: Built) -> None:
                if held:
                    raise KeyboardInterrupt
                built.append(engine)
                bar.update(whole, advance=1)
                if engine.reason:
                    console.print(
                        f"{engine.key.role} {engine.key.profile}: {engine.done} again, {engine.reason}", soft_wrap=True
                    )

            build_engines(bundle, self.order, self.trt, self.gpu, report, progress)
        return built


def _table(built: list[Built]) -> Table:
    table = Table(title="engines")
    table.add_column("graph", no_wrap=True)
    for name in ("profile", "precision", "engine"):
        table.add_column(name)
    for name in ("MiB", "seconds", "attention\nfused"):
        table.add_column(name, justify="right")
    for x in built:
        fused = sum(verdict.fused == "fused" for verdict in x.attention)
        attention = f"{fused} of {len(x.attention)}" if x.attention else ""
        size, seconds = f"{x.bytes / 2**20:.1f}", f"{x.seconds:.1f}"
        table.add_row(x.key.role, str(x.key.profile), x.key.precision, x.done, size, seconds, attention)
    table.add_section()
    table.add_row(
        "total", "", "", "", f"{sum(x.bytes for x in built) / 2**20:.1f}", f"{sum(x.seconds for x in built):.1f}", ""
    )
    return table


def _print_attention(console: Console, built: list[Built]) -> None:
    """A line for every reason why blocks are not known to be fused, with how many there are."""
    reasons = Counter(
        (x.key.precision, verdict.fused, verdict.reason)
        for x in built
        for verdict in x.attention
        if verdict.fused != "fused"
    )
    for (precision, fused, why), count in reasons.items():
        word = "not fused" if fused == "not fused" else "perhaps fused"
        console.print(f"{count} blocks of attention in {precision} graphs: {word}; {why}", highlight=False)


def run_inspect(path: Path) -> None:
    """Prints what an engine is for, its layers with their precisions, and what became of each block of attention."""
    engine = read_engine(path)
    console = Console(markup=False)
    key = engine.key
    for name, value in {
        "graph": key.role,
        "bundle": key.bundle_id[:16],
        "precision": key.precision,
        "profile": f"{key.profile} (smallest {_size(key.profile.smallest)}, usual {_size(key.profile.usual)}, "
                   f"largest {_size(key.profile.largest)})",
        "runs on": str(key.target),
        "options": ", ".join(key.options) or "none",
        "level": "TensorRT's own" if (level := engine.notes.get("optimization_level")) is None else str(level),
        "plan": f"{len(engine.plan):,} bytes, built in {engine.notes['build_seconds']:.1f} s",
    }.items():  # fmt: skip
        console.print(f"{name:10} {value}", highlight=False, soft_wrap=True)
    console.print(_layers(engine))
    verdicts = engine.notes["attention"]
    for k, verdict in enumerate(verdicts):
        console.print(f"attention {k}: {verdict['fused']}; {verdict['reason']}", highlight=False, soft_wrap=True)
    if not verdicts:
        console.print("no attention in this graph")


def _layers(engine: Engine) -> Table:
    of_engine = engine.notes["source"] == "engine"
    table = Table(
        title="layers of the engine" if of_engine else "layers of the network, before TensorRT joined them",
        caption=None if of_engine else "the engine's own are known where it is built beside the GPU that it is for",
    )
    for name in ("layer", "kind", "precision"):
        table.add_column(name, overflow="fold")
    for layer in engine.notes["layers"]:
        table.add_row(layer["name"], layer["kind"], layer["precision"])
    return table


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
