"""The bundle: what export hands to the runtime, read whole and checked.

A folder or one zip file with `manifest.json`, `*.onnx` and `tables.npz`.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from condic.errors import BundleError
from condic.files import write_file
from condic.runtime.consistency import first_problem
from condic.runtime.manifest import Manifest, parse_manifest

MANIFEST, TABLES = "manifest.json", "tables.npz"
_MOST_FILES = 256
_LARGEST_SIZE = 2**31
_UNREADABLE = (
    OSError, EOFError, MemoryError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error,  # the archive
    lzma.LZMAError,  # in one whose entries claim to be so packed
    ValueError, KeyError, TypeError, AttributeError,  # its manifest and tables
)  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A manifest with its tables (read-only arrays) and the bytes of its graphs."""

    manifest: Manifest
    tables: Mapping[str, npt.NDArray[Any]]
    graphs: Mapping[str, bytes]
    source: str

    @property
    def id(self) -> bytes:
        """The first 8 bytes of the bundle id, as files carry it."""
        return bytes.fromhex(self.manifest.bundle_id)[:8]


def read_bundle(path: Path) -> Bundle:
    """Reads and checks a bundle: a folder or a zip file. Raises BundleError, naming what is wrong."""
    try:
        files = _read_folder(path) if path.is_dir() else _read_zip(path)
        manifest = parse_manifest(json.loads(files[MANIFEST]))
        for name, digest in manifest.files.items():
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise BundleError(
                    f"{path}: {name} is damaged (its SHA-256 is not the manifest's); export or copy it again"
                )
        with np.load(io.BytesIO(files[TABLES]), allow_pickle=False) as archive:
            tables = {name: archive[name] for name in archive.files}
        for table in tables.values():
            table.setflags(write=False)
        bundle = Bundle(manifest, tables, {g.role: files[g.file] for g in manifest.graphs}, str(path))
        check_bundle(bundle)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no model bundle there; condic-export makes one") from error
    except _UNREADABLE as error:
        raise BundleError(f"{path}: not a readable model bundle ({type(error).__name__}: {error})") from error
    return bundle


def version_of(path: Path) -> tuple[str, int, int]:
    """What tells a bundle from another, or a newer one, without reading it: place, time and size of its file.

    That of a folder is its manifest. Zeros where there is none.
    """
    place = str(path.resolve())
    try:
        found = (path / MANIFEST if path.is_dir() else path).stat()
    except OSError:
        return place, 0, 0
    return place, found.st_mtime_ns, found.st_size


def write_bundle(bundle: Bundle, path: Path) -> None:
    """Writes a bundle as a zip file with fixed time stamps: the same content gives the same bytes.

    It takes its place when it is whole. Raises InputError.
    """
    write_file(path, _zip(bundle_files(bundle)))


def bundle_files(bundle: Bundle) -> dict[str, bytes]:
    """The files of a bundle by name, manifest first, with the manifest's digests filled in."""
    tables = _zip({f"{name}.npy": _npy(bundle.tables[name]) for name in sorted(bundle.tables)})
    files = {g.file: bundle.graphs[g.role] for g in bundle.manifest.graphs} | {TABLES: tables}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = replace(bundle.manifest, files=digests)
    return {MANIFEST: manifest.to_json().encode()} | files


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            graph = name.endswith(".onnx")  # weights hardly shrink, and reading them should take no time
            archive.writestr(entry, data, zipfile.ZIP_STORED if graph else zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def _read_folder(path: Path) -> dict[str, bytes]:
    names = [MANIFEST, *json.loads((path / MANIFEST).read_bytes())["files"]]
    if any(Path(name).name != name for name in names):
        raise ValueError("a file name with a folder in it")
    return {name: (path / name).read_bytes() for name in names}


def _read_zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_FILES or sum(e.file_size for e in entries) > _LARGEST_SIZE:
            raise ValueError("too many or too large files")
        return {e.filename: archive.read(e) for e in entries}


def check_bundle(bundle: Bundle) -> None:
    """Checks that step lists, schedules and tables fit together; BundleError names the first thing that does not."""
    if problem := first_problem(bundle.manifest, bundle.tables):
        raise BundleError(f"{bundle.source}: inconsistent bundle: {problem}")
