"""Everything that needs a GPU, in one go: builds engines, checks, measures, and writes it all down.

    python tests/gpu/run.py [--python PYTHON]... [--bundle BUNDLE] [--profiles 512,1080p,4k] [--out RESULTS.json]

Needs condic installed in each PYTHON (by default the one that runs this), pycuda, and TensorRT or onnxruntime-gpu;
engines also need onnx and rich. What a PYTHON lacks is written down and the rest goes on. Backends run in processes of
their own: one that crashes ends nothing else. The results are written after each of them, so that a run that is cut
short leaves what it had. Exit code 0: all passed; 1: something failed; 2: no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

BACKENDS = ("tensorrt", "ort-cuda")
SIZES = {"512": "512x768", "1080p": "1080p", "4k": "4k"}
SMALL_SIZES = ("512x768", "333x251")
"""Of the photographs that are coded in both directions."""
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PATIENCE = 3600
"""Seconds for a process."""


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
    results = Results(options.out or RESULTS, device)
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or _exported(Path(folder), results)
        for python in options.python or [sys.executable]:
            results.add(_kernels(python))
            for backend in BACKENDS:
                done = results.add(_process(python, backend, bundle, options.profiles))
                if any(x["ok"] for x in done):
                    results.add([_throughput(python, backend, bundle, options.profiles, Path(folder))])
    return results.summary()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python", action="append", help="Python of an environment to test; may be given several times"
    )
    parser.add_argument("--bundle", help="model; default: dcic-sgp s in half precision, or the shipped one")
    parser.add_argument("--profiles", default="512,1080p,4k", help="sizes to build engines for and to measure")
    parser.add_argument("--out", type=Path, help="file, or folder, of the results")
    parser.add_argument("--stages", help=argparse.SUPPRESS)
    return parser.parse_args()


def _gpu() -> str:
    """The GPU's name. Raises BackendError where there is none."""
    import ctypes

    from condic.runtime.cuda.driver import find_libcuda

    library, device, name = find_libcuda(), ctypes.c_int(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), 0)
    library.cuDeviceGetName(name, 256, device)
    return name.value.decode()


# What one process does.


def _work(options: argparse.Namespace) -> int:
    """Runs the stages of a backend, or of the kernels, and prints a line of JSON for each."""
    failed = False

    def stage(name: str, code: Callable[[], Facts]) -> Facts | None:
        nonlocal failed
        start, outcome = time.perf_counter(), {"backend": options.stages, "stage": name, "ok": True, "error": None}
        try:
            outcome["facts"] = code()
        except Exception as error:
            failed = True
            outcome |= {"ok": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        outcome["seconds"] = round(time.perf_counter() - start, 2)
        print(json.dumps(outcome), flush=True)
        return outcome.get("facts")  # type: ignore[return-value]

    if options.stages.startswith("kernels"):
        _kernel_stages(stage, quick=options.stages == "kernels-once")
    else:
        _backend_stages(stage, options.stages, options.bundle, options.profiles.split(","))
    return 1 if failed else 0


def _kernel_stages(stage: Callable[[str, Callable[[], Facts]], Facts | None], *, quick: bool) -> None:
    def code() -> Facts:
        from kernel_checks import check_kernels, measure_kernels

        from condic.runtime.bundle import read_bundle
        from condic.runtime.cuda.driver import open_driver
        from condic.runtime.shipped import find_bundle

        bundle, driver = read_bundle(find_bundle("dcic-sgp-s")), open_driver()
        try:
            facts: Facts = dict(check_kernels(driver, bundle, (4, 30) if quick else (4, 30, 136)))
            if not quick:
                facts["device"] = driver.device.describe()
                for name, size in {"1080p": (1080, 1920), "4k": (2160, 3840)}.items():
                    facts[name] = measure_kernels(driver, bundle, *size)
        finally:
            driver.close()
        return facts

    stage("kernels", code)


def _backend_stages(
    stage: Callable[[str, Callable[[], Facts]], Facts | None], backend: str, model: str, profiles: Sequence[str]
) -> None:
    from condic.benchmarks.photographs import find_photographs, parse_resolution, scaled
    from condic.runtime.bundle import read_bundle
    from condic.runtime.codec import Codec
    from condic.runtime.shipped import find_bundle

    bundle = read_bundle(find_bundle(model))
    if backend == "tensorrt" and stage("engines", lambda: _build_engines(bundle, profiles)) is None:
        return
    opened: list[Codec] = []

    def open_codec() -> Facts:
        opened.append(Codec(bundle, backend))
        return {"backend": opened[0].backend, "model": bundle.id.hex(), "precision": bundle.manifest.precision}

    if (
        stage("open", open_codec) is None
        or stage("known answers", lambda: checks().check_known_answers(opened[0])) is None
    ):
        return
    codec, host, (photograph, *_) = opened[0], Codec(bundle, "ort"), find_photographs(None)
    small = [scaled(photograph, parse_resolution(size))[0] for size in SMALL_SIZES]
    stage("graphs", lambda: checks().check_graphs(codec, host, small[0]))
    stage("cross decoding", lambda: checks().check_cross_decoding(codec, host, small))
    stage("repetition", lambda: checks().check_repetition(codec, small[0]))
    for profile in profiles:
        image, _ = scaled(photograph, parse_resolution(SIZES[profile]))
        stage(f"images {profile}", lambda image=image: checks().measure_images(codec, image))  # type: ignore[misc]
    codec.close()


def checks() -> Any:
    """The module beside this one, which imports condic."""
    import checks

    return checks


def _build_engines(bundle: Any, profiles: Sequence[str]) -> Facts:
    from condic.engines.build import Built, Order, build_engines
    from condic.engines.gpu import first_gpu
    from condic.engines.profiles import named_profiles
    from condic.runtime.engine_cache import engine_folder
    from condic.runtime.tensorrt_library import find_tensorrt

    trt, built = find_tensorrt(), list[Built]()
    order = Order(engine_folder(), named_profiles(",".join(profiles)))
    build_engines(bundle, order, trt, first_gpu(), built.append, lambda graph, profile: lambda phase, done: True)
    attention = [verdict for x in built for verdict in x.attention]
    return {
        "tensorrt": str(trt), "engines": len(built), "seconds": sum(x.seconds for x in built),
        "bytes": sum(x.bytes for x in built), "attention": len(attention),
        "fused": sum(verdict.fused == "fused" for verdict in attention),
        "not_fused": sorted({verdict.reason for verdict in attention if verdict.fused != "fused"}),
        "slowest": {x.key.role: round(x.seconds, 2) for x in sorted(built, key=lambda x: -x.seconds)[:5]},
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
        self._path = out

    def add(self, outcomes: list[Facts]) -> list[Facts]:
        """Writes outcomes down at once; gives them back."""
        from condic.files import replace_whole

        self._outcomes += outcomes
        with replace_whole(self._path) as temporary:
            temporary.write_text(json.dumps(self._facts | {"results": self._outcomes}, indent=1) + "\n")
        return outcomes

    def summary(self) -> int:
        """Says what failed; the exit code."""
        failed = [outcome for outcome in self._outcomes if not outcome["ok"]]
        for outcome in failed:
            print(f"failed: {outcome['backend']} {outcome['stage']}: {outcome['error']}")
        print(f"{len(self._outcomes) - len(failed)} passed, {len(failed)} failed; {self._path}")
        return 1 if failed else 0


def _exported(folder: Path, results: Results) -> str:
    """The bundle to test: in half precision where PyTorch is here, else the shipped one."""
    target = folder / "half.condic"
    program = "from condic.export.cli import main; main()"
    words = ["--model", "dcic-sgp", "--preset", "s", "--fp16", "--out", str(target)]
    command = [sys.executable, "-c", program, *words]
    start = time.perf_counter()
    code, _, complaint = _ended(command)
    error = None if code == 0 else (_last_line(complaint) or f"exit code {code}")
    results.add([_outcome("export", "half precision", error, {}, time.perf_counter() - start)])
    return "dcic-sgp-s" if error else str(target)


def _kernels(python: str) -> list[Facts]:
    """The kernels alone, then once more under each tool of compute-sanitizer."""
    outcomes = _process(python, "kernels", "", "")
    sanitizer = shutil.which("compute-sanitizer", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")
    for tool in SANITIZERS:
        name, start = f"compute-sanitizer {tool}", time.perf_counter()
        if sanitizer is None:
            outcomes.append(_outcome("kernels", name, "compute-sanitizer is not installed", {}, 0))
            continue
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", python, __file__, "--stages", "kernels-once"]
        code, said, complaint = _ended(command)
        summary = next((x for x in reversed(said.splitlines()) if "ERROR SUMMARY" in x), "").strip("= ")
        error = None if code == 0 else (summary or _last_line(said + complaint))
        outcomes.append(_outcome("kernels", name, error, {"summary": summary}, time.perf_counter() - start))
    return [outcome | {"python": python} for outcome in outcomes]


def _process(python: str, stages: str, bundle: str, profiles: str) -> list[Facts]:
    """Runs a process's stages; if it ends early, that is an outcome too."""
    print(f"{python}: {stages}", file=sys.stderr)
    start = time.perf_counter()
    command = [python, __file__, "--stages", stages, "--bundle", bundle, "--profiles", profiles]
    code, said, complaint = _ended(command)
    outcomes: list[Facts] = [json.loads(line) for line in said.splitlines() if line.startswith('{"backend"')]
    if code and all(outcome["ok"] for outcome in outcomes):
        why = f"the process ended with code {code}: {_last_line(complaint)}"
        outcomes.append(_outcome(stages, "process", why, {}, time.perf_counter() - start))
    for outcome in outcomes:
        print(f"  {outcome['stage']}: {'passed' if outcome['ok'] else outcome['error']}", file=sys.stderr)
    return [outcome | {"python": python} for outcome in outcomes]


def _throughput(python: str, backend: str, bundle: str, profiles: str, folder: Path) -> Facts:
    """condic-bench throughput with a backend."""
    target, start = folder / f"{backend}.json", time.perf_counter()
    sizes = ",".join(SIZES[profile] for profile in profiles.split(","))
    command = [
        python, "-m", "condic.benchmarks", "throughput", "--models", bundle, "--backends", backend, "--peers", "none",
        "--resolutions", sizes, "--repeat", "100", "--json", str(target),
    ]  # fmt: skip
    code, _, complaint = _ended(command)
    facts = json.loads(target.read_text()) if target.exists() else {}
    error = None if code == 0 else _last_line(complaint)
    return _outcome(backend, "throughput", error, facts, time.perf_counter() - start) | {"python": python}


def _ended(command: Sequence[str]) -> tuple[int, str, str]:
    """A process's exit code, and what it printed on standard output and standard error; 1 where it did not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except OSError as error:
        return 1, "", str(error)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else (error.stdout or "")
        return 1, said, f"not done after {PATIENCE} s"
    return done.returncode, done.stdout, done.stderr


def _outcome(backend: str, stage: str, error: str | None, facts: Facts, seconds: float) -> Facts:
    return {
        "backend": backend, "stage": stage, "ok": error is None, "error": error, "facts": facts,
        "seconds": round(seconds, 2),
    }  # fmt: skip


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:500] if text.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
