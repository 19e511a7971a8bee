"""Everything that needs a GPU, in one go: builds engines, checks, measures, and writes it all down.

    python tests/gpu/run.py [--python PYTHON]... [--bundle BUNDLE] [--profiles 512,1080p,4k | --shapes MIN,USUAL,MAX]
                            [--optimization-level N] [--builders N] [--sizes 512,1080p,4k]
                            [--only kernels,tensorrt,...] [--limit SECONDS] [--out RESULTS.json]

Needs condic installed in each PYTHON (by default the one that runs this), with pycuda, NVRTC (or nvcc, when condic was
built), onnxruntime for the CPU's side, and TensorRT, or onnxruntime-gpu in its place; engines also need onnx and rich,
training PyTorch and safetensors. What a PYTHON lacks is written down and the rest goes on. Parts run in processes of
their own: one that crashes, or takes longer than the limit, ends nothing else. Results are written as they come: a run
that is cut short leaves what it had.

Exit code 0: all passed; 1: something failed; 2: no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

Facts = dict[str, Any]

BACKENDS = ("tensorrt", "ort-cuda")
PARTS = ("kernels", *BACKENDS, "training", "sanitizers")
TRAINING: dict[str, Facts] = {
    "plain": {"capture": None, "steps": 10},
    "captured": {},
    "compiled": {"compile_model": True},
}
"""Ways to take steps, with options of `measure_crops`. Compiling, which takes minutes, comes last."""
SHIPPED = "dcic-sgp-s"
"""The model that comes with condic."""
SIZES = {"512": "512x768", "1080p": "1080p", "4k": "4k"}
CODER_LEVELS = (0, 32, 63)
SMALL_SIZES = ("512x768", "333x251")
"""Of the photographs that are coded in both directions at every level."""
_FOUND = 9
"""What a sanitizer that has found something ends with."""
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def main() -> int:
    """The program."""
    options = _options()
    if options.stages:
        return _work(options)
    try:
        device = _gpu()
    except ImportError as error:
        print(f"run.py: condic is not installed here ({error}); pip install . first", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"run.py: nothing to do: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _go_through(options, Results(options.out or RESULTS, device))
    finally:
        Run.end_all()


def _go_through(options: argparse.Namespace, results: Results) -> int:
    pythons, limit = options.python or [sys.executable], options.limit
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or SHIPPED
        if not options.bundle and set(options.only) & set(BACKENDS):
            bundle = _exported(Path(folder), results, limit)
        for python in pythons:
            for stages in ("kernels", *BACKENDS, "training checks", *(f"training {way}" for way in TRAINING)):
                if stages.split()[0] not in options.only:
                    continue
                command = [python, __file__, "--bundle", bundle, "--sizes", options.sizes, "--profiles",
                           options.profiles, "--shapes", options.shapes, *_level(options), "--stages"]  # fmt: skip
                if stages == "tensorrt":
                    results.add(python, _engines(command, bundle, options.builders, limit))
                passed = results.add(python, _process(stages, [*command, stages], limit))
                if passed and stages in BACKENDS:
                    results.add(python, [_throughput(python, stages, bundle, options.sizes, Path(folder), limit)])
        for python in pythons if "sanitizers" in options.only else ():
            results.add(python, _sanitized(python, limit))
    return results.summary()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python", action="append", help="Python of an environment to test; may be given several times"
    )
    parser.add_argument(
        "--bundle", type=_bundle, help="model; default: dcic-sgp s in half precision, or the shipped one"
    )
    parser.add_argument(
        "--profiles", default="512,1080p,4k", help="sizes to build engines for; 4k takes all others too"
    )
    parser.add_argument(
        "--shapes", default="", help="sizes that engines take, as condic-export has it, instead of profiles"
    )
    parser.add_argument("--optimization-level", type=int, help="as condic-export has it")
    parser.add_argument("--builders", type=_count, default=1, help="engines to build at once, which disturb each other")
    parser.add_argument("--sizes", type=_sizes, default="512,1080p,4k", help="sizes to measure")
    parser.add_argument(
        "--only", type=_parts, default=PARTS, metavar="PART,...", help=f"what to do of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds for each process")
    parser.add_argument("--out", type=Path, help="file, or folder, of the results")
    parser.add_argument("--stages", help=argparse.SUPPRESS)
    return parser.parse_args()


def _level(options: argparse.Namespace) -> list[str]:
    return [] if options.optimization_level is None else ["--optimization-level", str(options.optimization_level)]


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return parts


def _sizes(text: str) -> str:
    if unknown := set(text.split(",")) - SIZES.keys():
        raise argparse.ArgumentTypeError(f"no such size: {', '.join(sorted(unknown))}; there are {', '.join(SIZES)}")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of processes")
    return int(text)


def _bundle(text: str) -> str:
    """A model that can be read, before anything takes time; without condic, that is said later."""
    try:
        from condic.errors import CondicError
        from condic.runtime.bundle import read_bundle
        from condic.runtime.shipped import find_bundle
    except ImportError:
        return text
    try:
        read_bundle(find_bundle(text))
    except CondicError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _gpu() -> str:
    """The GPU's name. Raises BackendError where there is none."""
    import ctypes

    from condic.runtime.cuda.driver import find_libcuda

    library, device, name = find_libcuda(), ctypes.c_int(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), 0)
    library.cuDeviceGetName(name, 256, device)
    return name.value.decode()


# What one process does.

Stage = Callable[[str, Callable[[], Facts]], "Facts | None"]
"""Does a stage, prints its outcome as a line of JSON, and gives its facts, None if it failed."""


def _work(options: argparse.Namespace) -> int:
    """Runs the stages of a backend, of the kernels, or of a way to train."""
    failed = False

    def stage(name: str, code: Callable[[], Facts]) -> Facts | None:
        nonlocal failed
        start, outcome = time.perf_counter(), {"backend": options.stages, "stage": name, "ok": True, "error": None}
        try:
            outcome["facts"] = code()
        except Exception as error:
            failed = True
            outcome |= {"ok": False, "error": _message(error)}
        outcome["seconds"] = round(time.perf_counter() - start, 2)
        print(json.dumps(outcome), flush=True)
        return outcome.get("facts")  # type: ignore[return-value]

    sizes = options.sizes.split(",")
    if options.stages.startswith("kernels"):
        _kernel_stages(stage, options.bundle, [] if options.stages == "kernels-once" else sizes)
    elif options.stages.startswith("training "):
        _training_stages(stage, options.stages.split()[1])
    elif options.stages.startswith("engines "):
        _engine_stages(stage, options, options.stages.split()[1:])
    else:
        _backend_stages(stage, options.stages, options.bundle, sizes)
    return 1 if failed else 0


def _message(error: BaseException | None) -> str:
    """An error in one line, and those that it came after: a failed capture tells why there."""
    messages = []
    while error is not None and len(messages) < 4:
        messages.append(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        error = error.__cause__ or error.__context__
    return "; after ".join(messages)


def _kernel_stages(stage: Stage, model: str, sizes: Sequence[str]) -> None:
    from kernel_checks import check_kernels, measure_coder, measure_kernels

    from condic.runtime.bundle import read_bundle
    from condic.runtime.codec import Codec
    from condic.runtime.cuda.driver import Driver, open_driver
    from condic.runtime.shipped import find_bundle

    bundle, opened = read_bundle(find_bundle(model)), list[Driver]()

    def open_it() -> Facts:
        opened.append(open_driver())
        return {"device": opened[0].device.describe()}

    if stage("open", open_it) is None:
        return
    driver = opened[0]
    stage("kernels", lambda: check_kernels(driver, bundle, (4, 30, 136) if sizes else (4, 30)))
    for size in sizes:
        image = photograph(size)
        stage(f"kernels {size}", lambda: measure_kernels(driver, *image.shape[:2]))  # noqa: B023

        def measured() -> Facts:
            codec = Codec(bundle, "ort")
            return {
                f"{x.name}, level {level}": measure_coder(driver, bundle, x.chunks)
                for level in CODER_LEVELS
                for x in codec.host.quantise(image, level).latents  # noqa: B023
            }

        stage(f"coder {size}", measured)
    driver.close()


def _backend_stages(stage: Stage, backend: str, model: str, sizes: Sequence[str]) -> None:
    from condic.benchmarks.photographs import find_photographs, parse_resolution, scaled
    from condic.runtime.bundle import read_bundle
    from condic.runtime.codec import Codec
    from condic.runtime.shipped import find_bundle

    bundle, opened = read_bundle(find_bundle(model)), list[Codec]()

    def open_codec() -> Facts:
        opened.append(Codec(bundle, backend))
        return {"backend": opened[0].backend, "model": bundle.id.hex(), "precision": bundle.manifest.precision}

    if (
        stage("open", open_codec) is None
        or stage("known answers", lambda: checks().check_known_answers(opened[0])) is None
    ):
        return
    codec, host, (path, *_) = opened[0], Codec(bundle, "ort"), find_photographs(None)
    small = [scaled(path, parse_resolution(size))[0] for size in SMALL_SIZES]
    stage("graphs", lambda: checks().check_graphs(codec, host, small[0]))
    stage("cross decoding", lambda: checks().check_cross_decoding(codec, host, small))
    stage("repetition", lambda: checks().check_repetition(codec, small[0]))
    for size in sizes:
        image = photograph(size)
        stage(f"cross decoding {size}", lambda: checks().check_cross_decoding(codec, host, [image], [32]))  # noqa: B023
        stage(f"images {size}", lambda: checks().measure_single(codec, image))  # noqa: B023
        stage(f"many images {size}", lambda: checks().measure_many(codec, image))  # noqa: B023
        stage(f"profile {size}", lambda: checks().measure_parts(codec, image))  # noqa: B023
        if backend == "tensorrt":
            stage(f"layers {size}", lambda: checks().measure_layers(codec, image))  # noqa: B023
    codec.close()


def _training_stages(stage: Stage, way: str, preset: str = "s", batch: int = 64, device: str = "cuda") -> None:
    """The checks, or one way's measurements: what a capture that failed leaves behind ends with the process."""
    import torch
    import training_checks as training

    def open_it() -> Facts:
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} finds no GPU")
        return {"torch": torch.__version__}

    if stage("open", open_it) is None:
        return
    size = {"batch": batch, "side": 256, "device": device}
    for name, build in {"dcic-sgp": training.dcic_sgp, "cic-sr": training.cic_sr}.items():
        if way == "checks":
            stage(name, partial(training.check_capture, build, device=device))
        else:
            stage(name, partial(training.measure_crops, partial(build, preset), **TRAINING[way], **size))


def photograph(size: str) -> Any:
    """A picture of one of `SIZES`, uint8 [H, W, 3], of the photograph that comes with condic."""
    from condic.benchmarks.images import read_rgb
    from condic.benchmarks.photographs import find_photographs, parse_resolution

    resolution = parse_resolution(SIZES[size])
    return checks().mosaic(read_rgb(find_photographs(None)[0]), resolution.height, resolution.width)


def checks() -> Any:
    """The module beside this one, which imports condic."""
    import checks

    return checks


def _engine_stages(stage: Stage, options: argparse.Namespace, roles: Sequence[str]) -> None:
    """Graphs' engines: TensorRT takes half a minute to start, so that a process builds several."""
    from condic.runtime.tensorrt_library import find_tensorrt

    if stage("TensorRT", lambda: {"tensorrt": str(find_tensorrt())}) is not None:
        for role in roles:
            stage(f"engine {role}", partial(_build_engine, options, role))


def _build_engine(options: argparse.Namespace, role: str) -> Facts:
    """The engines of one graph."""
    from condic.engines.build import Built, Order, build_engines
    from condic.engines.gpu import first_gpu
    from condic.engines.profiles import named_profiles, profile_of_shapes
    from condic.runtime.bundle import read_bundle
    from condic.runtime.engine_cache import engine_folder
    from condic.runtime.shipped import find_bundle
    from condic.runtime.tensorrt_library import find_tensorrt

    trt, built, bundle = find_tensorrt(), list[Built](), read_bundle(find_bundle(options.bundle))
    graphs = tuple(graph for graph in bundle.manifest.graphs if graph.role == role)
    if not graphs:
        raise ValueError(f"the model has no graph {role}")
    alone = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
    shapes, level = options.shapes, options.optimization_level
    profiles = [profile_of_shapes(shapes)] if shapes else named_profiles(options.profiles)
    order = Order(engine_folder(), profiles, optimization_level=level)
    build_engines(alone, order, trt, first_gpu(), built.append, lambda graph, profile: lambda phase, done: True)
    return {
        "optimization_level": level,
        "engines": [
            {"profile": str(x.key.profile), "precision": x.key.precision, "done": x.done, "bytes": x.bytes,
             "seconds": round(x.seconds, 2), "attention": [asdict(verdict) for verdict in x.attention]}
            for x in built
        ],
    }  # fmt: skip


# What the parent does.


class Results:
    """The file of results."""

    def __init__(self, out: Path, device: str) -> None:
        """`out` is a file's name, or a folder in which it is named after the device and the day."""
        from condic.benchmarks.results import origin

        self._facts = asdict(origin("gpu")) | {"device": device}
        self._outcomes: list[Facts] = []
        if out.suffix != ".json":
            out.mkdir(parents=True, exist_ok=True)
            out /= f"gpu-{re.sub('[^a-z0-9]+', '-', device.lower())}-{self._facts['date'][:10]}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        self._path = out

    def add(self, python: str, outcomes: Iterable[Facts]) -> bool:
        """Writes each outcome down when it comes; whether any of them passed."""
        from condic.files import replace_whole

        passed = False
        for outcome in outcomes:
            self._outcomes.append(outcome | {"python": python})
            passed = passed or outcome["ok"]
            with replace_whole(self._path) as temporary:
                temporary.write_text(json.dumps(self._facts | {"results": self._outcomes}, indent=1) + "\n")
            what = f"{outcome['backend']} {outcome['stage']}, {outcome['seconds']:.1f} s"
            print(f"{what}: {'passed' if outcome['ok'] else outcome['error']}", file=sys.stderr)
        return passed

    def summary(self) -> int:
        """Says what failed; the exit code."""
        failed = [outcome for outcome in self._outcomes if not outcome["ok"]]
        for outcome in failed:
            print(f"failed: {outcome['backend']} {outcome['stage']}: {outcome['error']}")
        print(f"{len(self._outcomes) - len(failed)} passed, {len(failed)} failed; {self._path}")
        return 1 if failed or not self._outcomes else 0


def _exported(folder: Path, results: Results, limit: float) -> str:
    """The bundle to test: in half precision where PyTorch is here, else the shipped one."""
    target = folder / "half.condic"
    program = "from condic.export.cli import main; main()"
    words = ["--model", "dcic-sgp", "--preset", "s", "--fp16", "--out", str(target)]
    start, run = time.perf_counter(), Run([sys.executable, "-c", program, *words], limit)
    results.add(sys.executable, [_outcome("export", "half precision", run.error(), {}, time.perf_counter() - start)])
    return SHIPPED if run.error() else str(target)


def _process(stages: str, command: Sequence[str], limit: float) -> Iterator[Facts]:
    """The outcomes of a process, as they come; if it ends early, that is an outcome too."""
    start, run, failed = time.perf_counter(), Run(command, limit, wait=False), False
    for line in run.lines():
        if outcome := _told(line):
            failed = failed or not outcome["ok"]
            yield outcome
    if (error := run.error()) and not failed:
        yield _outcome(stages, "process", error, {}, time.perf_counter() - start)


def _told(line: str) -> Facts | None:
    """The outcome that a line is; None where it is none, or not all of one."""
    if not line.startswith('{"backend"'):
        return None
    with suppress(ValueError):
        outcome: Facts = json.loads(line)
        return outcome
    return None


def _engines(command: Sequence[str], model: str, builders: int, limit: float) -> Iterator[Facts]:
    """Engines are built, by several processes at once: a graph that fails keeps no other from being built."""
    from condic.runtime.bundle import read_bundle
    from condic.runtime.shipped import find_bundle

    outcomes: queue.Queue[Facts | None] = queue.Queue()

    def build(share: Sequence[Any]) -> None:
        stages = " ".join(["engines", *(graph.role for graph in share)])
        try:
            for outcome in _process(stages, [*command, stages], limit):
                outcomes.put(outcome)
        except Exception as error:
            outcomes.put(_outcome(stages, "process", f"{type(error).__name__}: {error}", {}, 0))
        finally:
            outcomes.put(None)

    graphs = read_bundle(find_bundle(model)).manifest.graphs
    slowest_first = sorted(graphs, key=lambda graph: (graph.precision != "float", "synthesis" not in graph.role))
    shares = [slowest_first[k::builders] for k in range(min(builders, len(graphs)))]
    for share in shares:
        threading.Thread(target=build, args=(share,), daemon=True).start()
    for _ in shares:
        while (outcome := outcomes.get()) is not None:
            yield outcome


def _throughput(python: str, backend: str, bundle: str, sizes: str, folder: Path, limit: float) -> Facts:
    """condic-bench throughput with a backend."""
    target, start = folder / f"{backend}.json", time.perf_counter()
    run = Run([
        python, "-m", "condic.benchmarks", "throughput", "--models", bundle, "--backends", backend, "--peers", "none",
        "--resolutions", ",".join(SIZES[size] for size in sizes.split(",")), "--repeat", "100", "--json", str(target),
    ], limit)  # fmt: skip
    facts = json.loads(target.read_text()) if target.exists() else {}
    return _outcome(backend, "throughput", run.error(), facts, time.perf_counter() - start)


def _sanitized(python: str, limit: float) -> Iterator[Facts]:
    """The kernels once more under each tool of compute-sanitizer."""
    sanitizer = shutil.which("compute-sanitizer", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")
    if sanitizer is None:
        yield _outcome("kernels", "compute-sanitizer", "it is not installed", {}, 0)
        return
    kernels = [python, __file__, "--stages", "kernels-once", "--bundle", SHIPPED]
    for tool in SANITIZERS:
        start = time.perf_counter()
        run = Run(
            [sanitizer, "--tool", tool, "--target-processes", "all", "--error-exitcode", str(_FOUND), *kernels], limit
        )
        summary = next((x for x in reversed(run.said) if " SUMMARY: " in x), "").strip("= \n")
        error = run.error() and (summary if run.code == _FOUND else run.failure() or run.error())
        yield _outcome("kernels", f"compute-sanitizer {tool}", error, {"summary": summary}, time.perf_counter() - start)


class Run:
    """A process, ended after `limit` seconds; `said` are the lines that it printed on standard output."""

    _going: ClassVar[set[Run]] = set()

    @classmethod
    def end_all(cls) -> None:
        """Ends those that are still going, which nobody waits for any more."""
        for run in list(cls._going):
            run._kill()

    def __init__(self, command: Sequence[str], limit: float, *, wait: bool = True) -> None:
        self.said: list[str] = []
        self._limit, self._late, self._complaint = limit, False, ""
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=self._complaints, text=True, start_new_session=True
            )
        except OSError as error:
            self._complaint = str(error)
            self._complaints.close()
            return
        self._going.add(self)
        self._timer = threading.Timer(limit, self._end)
        self._timer.daemon = True
        self._timer.start()
        if wait:
            list(self.lines())

    def lines(self) -> Iterator[str]:
        """The lines, as they come, until the process ends."""
        if self._process is None:
            return
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self.said.append(line)
                yield line
            self._process.wait()
        finally:
            if self._process.poll() is None:  # whoever reads has given up
                self._kill()
            self._timer.cancel()
            self._going.discard(self)
            self._process.stdout.close()
            self._complaints.seek(0)
            self._complaint = self._complaints.read()
            self._complaints.close()

    @property
    def code(self) -> int | None:
        """What it ended with."""
        return None if self._process is None else self._process.returncode

    def failure(self) -> str | None:
        """The error of the first stage that failed, as the process has told it."""
        told = (_told(line) for line in self.said)
        return next((f"{x['stage']}: {x['error']}" for x in told if x and not x["ok"]), None)

    def error(self) -> str | None:
        """What went wrong, in one line, once it has ended."""
        if self._late:
            return f"not done after {self._limit:.0f} s"
        if self._process is not None and self._process.returncode == 0:
            return None
        last = (self._complaint.strip().splitlines() or [""])[-1][:500]
        return last if self._process is None else f"the process ended with code {self._process.returncode}: {last}"

    def _end(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what it has started


def _outcome(backend: str, stage: str, error: str | None, facts: Facts, seconds: float) -> Facts:
    return {
        "backend": backend, "stage": stage, "ok": error is None, "error": error, "facts": facts,
        "seconds": round(seconds, 2),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
