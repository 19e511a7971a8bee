"""Files that spare work the next time, such as compiled graphs. Losing them costs time, nothing else."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from condic.files import replace_whole

MOST_FILES = 128
"""The newest so many files are kept: about ten models."""
_VARIABLE = "CONDIC_CACHE"


class Cache:
    """Byte strings by key, in a folder; every failure to read or write is as if there were nothing."""

    def __init__(self, folder: Path | None) -> None:
        """No folder: nothing is kept."""
        self._folder = folder

    def get(self, *key: str | bytes) -> bytes | None:
        """What was put there, if it is there and whole: a file begins with the SHA-256 of the rest."""
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
            digest, data = content[:32], content[32:]
            if hashlib.sha256(data).digest() != digest:
                return None
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, data: bytes, *key: str | bytes) -> None:
        """Keeps `data`; the oldest files beyond `MOST_FILES` go."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replace_whole(self._path(key)) as temporary:
                temporary.write_bytes(hashlib.sha256(data).digest() + data)
            files = sorted(self._folder.glob("*.bin"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in files[MOST_FILES:]:
                path.unlink()

    def _path(self, key: tuple[str | bytes, ...]) -> Path:
        digest = hashlib.sha256()
        for part in key:
            encoded = part.encode() if isinstance(part, str) else part
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        assert self._folder is not None
        return self._folder / f"{digest.hexdigest()}.bin"


def user_cache(name: str) -> Cache:
    """The cache `name` of this user."""
    return Cache(cache_folder(name))


def cache_folder(name: str) -> Path | None:
    """The folder of the cache `name`: in CONDIC_CACHE (empty: none), else where the system keeps caches."""
    given = os.environ.get(_VARIABLE)
    if given is not None:
        return Path(given) / name if given else None
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not base.is_absolute():  # as its specification has it
            base = Path("~/.cache")
    try:
        return base.expanduser() / "condic" / name
    except RuntimeError:  # no home
        return None
