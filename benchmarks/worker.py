"""Measures one configuration: a question as JSON on standard input, the answer as the last line of standard output.

`python -m condic.benchmarks.worker`, started by `throughput`. It needs no more than a plain installation and the
library under test.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condic.benchmarks.peers import MissingError, open_peer, split_level
from condic.benchmarks.photographs import scaled
from condic.benchmarks.process_memory import peak, reset_peak, resident
from condic.benchmarks.results import first_words
from condic.benchmarks.throughput import Answer, Configuration, Measurement, Memory, Plan
from condic.benchmarks.timing import Direction, measure
from condic.errors import BackendError, CondicError
from condic.runtime.arrays import Pixels
from condic.runtime.cuda.driver import Driver
from condic.runtime.timings import Timings
from condic.runtime.typed_json import typed


@dataclass(frozen=True)
class Subject:
    """A loaded codec as two functions."""

    settings: str
    level: int
    graphs: tuple[str, ...]
    encode: Callable[[Pixels, Timings], bytes]
    decode: Callable[[bytes, Timings], npt.NDArray[np.uint8]]
    device_memory: Callable[[], int | None] = lambda: None
    build_seconds: Callable[[], float | None] = lambda: None


def answer(plan: Plan, configuration: Configuration) -> Answer:
    """Measures, or says why not."""
    try:
        return Answer(measured=_measure(plan, configuration))
    except MissingError as error:
        return Answer(missing=str(error))
    except CondicError as error:
        return Answer(error=str(error))
    except Exception as error:  # whatever a library raises is this configuration's result
        return Answer(error=first_words(error))


def _measure(plan: Plan, configuration: Configuration) -> Measurement:
    pictures = [scaled(Path(path), configuration.resolution) for path in plan.photographs]
    images, before = [pixels for pixels, _ in pictures], resident()
    start = time.perf_counter()
    subject = _open_model(plan, configuration) if configuration.backend else _open_peer(plan, configuration)
    load, loaded = time.perf_counter() - start, resident()
    files: dict[int, bytes] = {}
    encode, encode_peak = _repeat(plan, len(images), lambda k, t: files.update({k: subject.encode(images[k], t)}))
    data = list(files.values())
    shapes: set[tuple[int, ...]] = set()
    decode, decode_peak = _repeat(plan, len(data), lambda k, t: shapes.add(subject.decode(data[k], t).shape))
    if shapes != {images[0].shape}:
        raise RuntimeError(f"decoded to {shapes}, not {images[0].shape}")
    memory = Memory(before, loaded, encode_peak, decode_peak) if before else None
    return Measurement(
        settings=subject.settings,
        level=subject.level,
        bytes=float(np.mean([len(file) for file in data])),
        enlarged=max(factor for _, factor in pictures),
        load=load,
        encode=encode,
        decode=decode,
        memory=memory,
        graphs=subject.graphs,
        device_memory=subject.device_memory(),
        build_seconds=subject.build_seconds(),
    )


def _repeat(plan: Plan, inputs: int, code: Callable[[int, Timings], None]) -> tuple[Direction, int]:
    """Times `code` on `batch` of the inputs per run, at the same time; also the peak of memory meanwhile."""
    reset_peak()
    with ThreadPoolExecutor(plan.batch) as pool:

        def run(k: int, timings: Timings) -> None:
            batch = [i % inputs for i in range(k * plan.batch, (k + 1) * plan.batch)]
            if plan.batch == 1:
                code(batch[0], timings)
                return
            each = [Timings() for _ in batch]
            list(pool.map(code, batch, each))
            for one in each:  # they overlap: a stage's share of the time is its mean
                for name, seconds in one.seconds.items():
                    timings.seconds[name] = timings.seconds.get(name, 0.0) + seconds / plan.batch

        direction = measure(run, plan.runs, plan.limit)
    return direction, peak()


def _open_model(plan: Plan, configuration: Configuration) -> Subject:
    from condic.runtime.backends import open_backend
    from condic.runtime.backends.tensorrt import TensorRtBackend
    from condic.runtime.codec import load_codec

    assert configuration.backend is not None
    try:
        open_backend(configuration.backend)
    except BackendError as error:
        raise MissingError(str(error)) from error
    codec = load_codec(configuration.codec, configuration.backend, plan.threads)
    backend = codec.graphs.backend
    device_memory = _device_memory(backend.driver)
    codec.load()
    return Subject(
        f"model {codec.bundle.id.hex()}, {codec.backend}",
        plan.quality,
        tuple(graph.role for graph in codec.bundle.manifest.graphs),
        lambda image, timings: codec.encode(image, plan.quality, timings),
        lambda data, timings: codec.decode(data, timings).image,
        device_memory,
        lambda: backend.build_seconds if isinstance(backend, TensorRtBackend) else None,
    )


def _device_memory(driver: Driver | None) -> Callable[[], int | None]:
    """Tells by how much less is free on a device than now."""
    if driver is None:
        return lambda: None

    def free() -> int:
        with driver.entered():
            return driver.free_memory()

    before = free()
    return lambda: before - free()


def _open_peer(plan: Plan, configuration: Configuration) -> Subject:
    name, level = split_level(configuration.codec)
    peer = open_peer(name, plan.threads)
    used = peer.usual_level if level is None else level
    return Subject(
        peer.settings,
        used,
        (),
        lambda image, _: peer.encode(image, used),
        lambda data, _: peer.decode(data),
    )


def main() -> None:
    """Reads the question, prints the answer."""
    question = json.load(sys.stdin)
    plan, configuration = typed(Plan, question["plan"]), typed(Configuration, question["configuration"])
    print(json.dumps(asdict(answer(plan, configuration))))


if __name__ == "__main__":
    main()
