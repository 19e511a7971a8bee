"""TensorRT engines on disk: what each was built for, and whether it may be loaded here.

`condic-export --engines` writes them, the backend `tensorrt` reads them. A plan for another GPU or another TensorRT can
crash the process that loads it, so a file says what it is for, and its bytes are checked before TensorRT sees them.

A file is 8 bytes of magic, the SHA-256 of all that follows, the length of the header (4 bytes, little-endian), the
header (JSON: the key, then notes for people), and the plan as TensorRT made it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from condic.errors import BackendError
from condic.files import reason, replace_whole
from condic.runtime.cache import cache_folder
from condic.runtime.manifest import Graph, Size
from condic.runtime.typed_json import typed

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Precision = Literal["exact", "guarded", "fp16", "fp32"]
"""`exact`: float32 with TF32 allowed; `guarded`: float32 without; the others are for float graphs."""
Option = Literal["version-compatible", "hardware-compatible", "weight-stripped"]

SUFFIX = ".engine"
_VARIABLE = "CONDIC_ENGINES"
_MAGIC = b"CDENGIN\x01"
_PREFIX = len(_MAGIC) + 32 + 4
_SHOWN_PROBLEMS = 3
_LARGEST_HEADER = 2**24
_OLDEST_COMPATIBLE = (8, 0)
"""Hardware-compatible engines run on Ampere and later."""
_RTX_KNOWS, _RTX_FROM = ((8, 0), (8, 6), (8, 9)), (12, 0)
"""Compute capabilities on which TensorRT-RTX 1.7 runs engines built for all GPUs, and the one from which on every later
one does."""
RTX_GPUS = "8.0, 8.6, 8.9, and 12.0 and later"
"""For people: those that `rtx_runs_on` has."""


def rtx_runs_on(capability: str) -> bool:
    """Whether TensorRT-RTX runs engines for all GPUs on one of this compute capability ("8.9")."""
    return numbers_of(capability) in _RTX_KNOWS or numbers_of(capability) >= _RTX_FROM


@dataclass(frozen=True)
class Target:
    """Where an engine runs: a GPU as its driver names it, its compute capability ("8.7"), and a TensorRT.

    An engine that was built without a GPU, by TensorRT-RTX for all that it runs on, has no GPU's name: its capability
    is the lowest of these.
    """

    gpu: str
    compute_capability: str
    flavour: Flavour
    version: str

    def __str__(self) -> str:
        """For people: "TensorRT 10.3.0 on Orin (8.7)"."""
        library = "TensorRT" if self.flavour == "tensorrt" else "TensorRT-RTX"
        gpu = f"{self.gpu} ({self.compute_capability})" if self.gpu else f"GPUs of compute capability {RTX_GPUS}"
        return f"{library} {self.version} on {gpu}"


@dataclass(frozen=True)
class Profile:
    """Image sizes that an engine takes, in pixels: every height and width from `smallest` to `largest`.

    It is tuned for `usual`. Sides are those of the padded image.
    """

    smallest: Size
    usual: Size
    largest: Size

    def takes(self, size: Size) -> bool:
        """Whether a padded image of this size can be run."""
        return all(low <= x <= high for low, x, high in zip(self.smallest, size, self.largest, strict=True))

    def __str__(self) -> str:
        """Its name, else "128x128,512x768,768x768": heights by widths."""
        return _NAMES.get(self) or ",".join(f"{h}x{w}" for h, w in (self.smallest, self.usual, self.largest))


PROFILES: Mapping[str, Profile] = {
    "512": Profile((128, 128), (512, 768), (768, 768)),
    "1080p": Profile((128, 128), (1152, 1920), (1152, 1920)),
    "4k": Profile((128, 128), (2176, 3840), (2176, 3840)),
}
"""Resolution classes; memory is planned for the largest size. Portrait 1080p is within `4k`."""
_NAMES = {profile: name for name, profile in PROFILES.items()}


@dataclass(frozen=True)
class EngineKey:
    """All that decides whether an engine is the one to run."""

    bundle_id: str
    role: str
    precision: Precision
    target: Target
    profile: Profile
    options: tuple[Option, ...] = ()

    def misfit(self, target: Target) -> str | None:
        """Why an engine with this key cannot run on `target`; None if it can."""
        built = self.target
        if built.flavour != target.flavour or not self._runs_under(target.version):
            return f"it was built for {built}, this is {target}"
        if "hardware-compatible" in self.options or not built.gpu:
            least = _OLDEST_COMPATIBLE if built.gpu else numbers_of(built.compute_capability)
            if numbers_of(target.compute_capability) < least:
                return f"it needs compute capability {'.'.join(map(str, least))} or higher, this is {target}"
            if built.flavour == "tensorrt-rtx" and not rtx_runs_on(target.compute_capability):
                found = target.compute_capability
                return f"TensorRT-RTX does not run on this GPU's compute capability, {found} ({RTX_GPUS})"
        elif (built.gpu, built.compute_capability) != (target.gpu, target.compute_capability):
            return f"it was built for {built}, this is {target}"
        if "weight-stripped" in self.options:
            return "its weights are stripped"
        return None

    def _runs_under(self, version: str) -> bool:
        built, running = numbers_of(self.target.version), numbers_of(version)
        if "version-compatible" in self.options:
            return built[0] == running[0] and built <= running
        return built == running


@dataclass(frozen=True)
class Engine:
    """A plan as TensorRT made it, what it was built for, and what the builder noted about it, for people."""

    key: EngineKey
    plan: bytes
    notes: Mapping[str, Any] = field(default_factory=dict)


def engine_precisions(graph: Graph) -> tuple[Precision, ...]:
    """Precisions in which a graph may run, the fastest first."""
    return ("fp16", "fp32") if graph.precision == "float" else (graph.precision,)


def engine_folder() -> Path:
    """Where engines are: the folder CONDIC_ENGINES, else this user's cache. Raises BackendError where there is none."""
    if given := os.environ.get(_VARIABLE):
        return Path(given)
    folder = cache_folder("engines")
    if folder is None:
        raise BackendError(f"engines need a folder: there is no cache here (CONDIC_CACHE is empty); set {_VARIABLE}")
    return folder


def engine_path(folder: Path, key: EngineKey) -> Path:
    """The file of an engine: a folder per bundle, a name that begins with the role, and a hash of the key."""
    digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()[:16]
    return folder / key.bundle_id[:16] / f"{key.role}-{key.precision}-{digest}{SUFFIX}"


def write_engine(folder: Path, engine: Engine) -> Path:
    """Writes an engine, whole or not at all, and returns its path. Raises BackendError if the system refuses."""
    path = engine_path(folder, engine.key)
    header = json.dumps({"key": asdict(engine.key), "notes": dict(engine.notes)}).encode()
    content = len(header).to_bytes(4, "little") + header + engine.plan
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replace_whole(path) as temporary:
            temporary.write_bytes(_MAGIC + hashlib.sha256(content).digest() + content)
    except OSError as error:
        raise BackendError(f"{path}: {reason(error)}") from error
    return path


def read_engine(path: Path) -> Engine:
    """Reads an engine and checks every byte. Raises BackendError for what is none, or is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackendError(f"{path}: {reason(error)}") from error
    key, notes, start = _header(path, content)
    if hashlib.sha256(content[len(_MAGIC) + 32 :]).digest() != content[len(_MAGIC) :][:32]:
        raise BackendError(f"{path}: damaged (its SHA-256 is not the one in its header); build it again")
    return Engine(key, content[start:], notes)


@dataclass(frozen=True)
class Search:
    """What an engine is wanted for: a graph, the precisions that will do, a GPU, and the size of the padded image."""

    folder: Path
    bundle_id: str
    role: str
    precisions: Sequence[Precision]
    target: Target
    size: Size

    def fitting(self) -> list[tuple[Path, EngineKey]]:
        """Engines by their headers alone, best first: of the first precision, the smallest profile with the size.

        Raises BackendError if there is none; it says what was wrong with those that are there.
        """
        found, problems = self._sorted()
        if not found:
            raise self._error(problems)
        return found

    def read(self) -> Engine:
        """The best engine, read and checked. Damaged ones are passed over. Raises BackendError if none is left."""
        found, problems = self._sorted()
        for path, _ in found:
            try:
                return read_engine(path)
            except BackendError as error:
                problems.insert(0, str(error))  # worse than an engine that is for others
        raise self._error(problems)

    def _sorted(self) -> tuple[list[tuple[Path, EngineKey]], list[str]]:
        problems: list[str] = []
        fitting: list[tuple[Path, EngineKey]] = []
        for path, key in stored_engines(self.folder, self.bundle_id, self.role):
            if isinstance(key, str):
                problems.append(key)
                continue
            if (key.bundle_id, key.role) != (self.bundle_id, self.role) or key.precision not in self.precisions:
                continue
            problem = key.misfit(self.target)
            if problem is None and not key.profile.takes(self.size):
                problem = f"it takes {key.profile}, not {self.size[0]}x{self.size[1]}"
            if problem:
                problems.append(f"{path}: {problem}")
            else:
                fitting.append((path, key))
        order = self.precisions.index
        return sorted(fitting, key=lambda x: (order(x[1].precision), math.prod(x[1].profile.largest), x[0])), problems

    def _error(self, problems: Sequence[str]) -> BackendError:
        found = f"none fits ({'; '.join(problems[:_SHOWN_PROBLEMS])})" if problems else f"none in {self.folder}"
        return BackendError(
            f"no engine of {self.role} for {self.size[0]}x{self.size[1]} on {self.target}: {found}; build them with "
            "condic-export --engines, with --shapes for sizes of your own, or use --backend ort"
        )


def stored_engines(folder: Path, bundle_id: str, role: str) -> Iterator[tuple[Path, EngineKey | str]]:
    """Files that may hold an engine of a graph, by name, each with its key or, if that cannot be read, the reason."""
    for path in sorted((folder / bundle_id[:16]).glob(f"{role}-*{SUFFIX}")):
        try:
            with path.open("rb") as file:
                head = file.read(_PREFIX)
                head += file.read(min(int.from_bytes(head[-4:], "little"), _LARGEST_HEADER))
            yield path, _header(path, head)[0]
        except OSError as error:
            yield path, f"{path}: {reason(error)}"
        except BackendError as error:
            yield path, str(error)


def _header(path: Path, content: bytes) -> tuple[EngineKey, Mapping[str, Any], int]:
    """Key, notes, and where the plan begins."""
    length = int.from_bytes(content[_PREFIX - 4 : _PREFIX], "little")
    header = content[_PREFIX : _PREFIX + length]
    if not content.startswith(_MAGIC) or len(header) != length or length > _LARGEST_HEADER:
        raise BackendError(f"{path}: not an engine that condic-export wrote, or cut short; build it again")
    try:
        data = json.loads(header)
        return typed(EngineKey, data["key"]), dict(data["notes"]), _PREFIX + length
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"{path}: an engine with a header that cannot be read; build it again") from error


def numbers_of(version: str) -> tuple[int, ...]:
    """The parts of a version, for comparing: (10, 3, 0, 26). What is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
