"""Throughput per resolution: what is measured, in which order, and what came out.

Every configuration (codec, backend, resolution) runs in a process of its own, see `worker`: its memory is its own, and
one that crashes takes nothing else with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from condic.benchmarks.peers import COMPRESSAI
from condic.benchmarks.photographs import Resolution
from condic.benchmarks.results import first_words
from condic.benchmarks.timing import Direction
from condic.runtime.typed_json import typed

GIVE_UP = 4
"""A configuration is ended after so many times the time limit of a direction."""


@dataclass(frozen=True)
class Plan:
    """What holds for all configurations of a run.

    `batch` images are coded at the same time. A direction's runs end after `runs` of them or after `limit` seconds;
    run k codes photographs k * batch and those after it, beginning again after the last. `quality` is condic's level.
    """

    photographs: tuple[str, ...]
    batch: int
    threads: int
    quality: int
    runs: int
    limit: float


@dataclass(frozen=True)
class Configuration:
    """A codec at a resolution: a model (name or path) on a backend; where `backend` is None, a peer, say `jpeg:5`."""

    codec: str
    backend: str | None
    resolution: Resolution

    def describe(self) -> str:
        """For people."""
        return " ".join(filter(None, (self.codec, self.backend, self.resolution.name)))


@dataclass(frozen=True)
class Memory:
    """Host memory in bytes, of the whole process: what it holds once the codec is loaded, and its peak in each
    direction. `before` is what it held before it loaded the codec: the interpreter and the photographs."""

    before: int
    loaded: int
    encode: int
    decode: int


@dataclass(frozen=True)
class Measurement:
    """What a worker measured.

    `device_memory` is bytes of a GPU's memory that are held after the runs, beyond the bare context; None on a CPU.
    `build_seconds` is what `condic-export` took to build the engines that ran; None where there are none.
    `load` is seconds from nothing to a codec whose graphs are all loaded and tested, imports included. `bytes` is the
    mean size of a file. `enlarged` is the largest factor by which a photograph was scaled. `graphs` are those of the
    stages that are graphs, `settings` says what ran.
    """

    settings: str
    level: int
    bytes: float
    enlarged: float
    load: float
    encode: Direction
    decode: Direction
    memory: Memory | None
    graphs: tuple[str, ...]
    device_memory: int | None = None
    build_seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """A configuration and what became of it: a measurement, or the error that it ended with."""

    codec: str
    backend: str | None
    resolution: Resolution
    measured: Measurement | None
    error: str | None

    @property
    def name(self) -> str:
        """Codec and backend."""
        return f"{self.codec} {self.backend}" if self.backend else self.codec


@dataclass(frozen=True)
class Throughput:
    """A whole run. `missing` says what was asked for and is not installed here, and how to get it."""

    plan: Plan
    rows: tuple[Row, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a worker says: one of the three is not None."""

    measured: Measurement | None = None
    missing: str | None = None
    error: str | None = None


def run_all(
    plan: Plan, configurations: Sequence[Configuration], begin: Callable[[str], None], compressai: str = sys.executable
) -> Iterator[Throughput]:
    """Measures one configuration after the other; yields everything so far after each.

    `begin` is called before each with its description. What is missing once is not tried again. `compressai` is the
    Python that runs CompressAI's models.
    """
    run = Throughput(plan)
    for each in configurations:
        begin(each.describe())
        key = each.backend or each.codec
        if key in run.missing:
            continue
        answer = _ask(
            plan,
            each,
            compressai if each.codec.partition(":")[0] in COMPRESSAI and not each.backend else sys.executable,
        )
        if answer.missing is not None:
            run = replace(run, missing={**run.missing, key: answer.missing})
        else:
            row = Row(each.codec, each.backend, each.resolution, answer.measured, answer.error)
            run = replace(run, rows=(*run.rows, row))
        yield run


def _ask(plan: Plan, configuration: Configuration, python: str) -> Answer:
    """Runs a worker to its end."""
    question = json.dumps({"plan": asdict(plan), "configuration": asdict(configuration)})
    patience = GIVE_UP * plan.limit
    try:
        done = subprocess.run(
            [python, "-m", "condic.benchmarks.worker"],
            input=question, capture_output=True, text=True, errors="replace", timeout=patience,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Answer(error=f"not done after {patience:g} s")
    except OSError as error:
        return Answer(missing=f"{python} cannot be run: {error.strerror}")
    lines = done.stdout.splitlines()
    try:
        answer: Answer = typed(Answer, json.loads(lines[-1] if lines else ""))
    except (ValueError, KeyError, TypeError) as error:
        said = (done.stderr.strip() or first_words(error)).splitlines()[-1]
        if "No module named" in said:
            return Answer(missing=f"{python}: {said}; install condic there")
        return Answer(error=f"the process ended with code {done.returncode}: {said}")
    return answer
