"""Files of results: JSON that says what was run, on what, and what came out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from condic.benchmarks.machine import Machine, this_machine
from condic.errors import InputError
from condic.files import read_source, write_file
from condic.runtime.typed_json import typed
from condic.version import __version__


@dataclass(frozen=True)
class Origin:
    """Where results come from: `kind` is the command that made them, `date` is in UTC."""

    kind: str
    command: str
    condic: str
    date: str
    machine: Machine


@dataclass(frozen=True)
class Results:
    """The content of a file of results; what `content` is depends on `origin.kind`."""

    origin: Origin
    content: Any


def origin(kind: str) -> Origin:
    """The origin of what this process is about to measure."""
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")
    return Origin(kind, shlex.join(["condic-bench", *sys.argv[1:]]), __version__, date, this_machine())


def write_results(path: Path, results: Results) -> None:
    """Writes a file of results; `content` consists of dataclasses. Raises InputError."""
    fields = asdict(results)
    facts = fields["origin"] | {"results": fields["content"]}
    write_file(path, (json.dumps(facts, indent=1) + "\n").encode())


def read_results(path: Path, kinds: Mapping[str, type]) -> Results:
    """Reads a file of results of one of `kinds`. Raises InputError for anything else."""
    try:
        facts = json.loads(bytes(read_source(path)))
        content = facts.pop("results")
        found: Origin = typed(Origin, facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not results of condic-bench ({first_words(error)})") from error
    if found.kind not in kinds:
        raise InputError(f"{path}: results of {found.kind}; this reads those of {', '.join(kinds)}")
    try:
        return Results(found, typed(kinds[found.kind], content))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: results of another version of condic ({first_words(error)})") from error


def first_words(error: Exception) -> str:
    """An error in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
