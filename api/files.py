"""Files in and out: written whole or not at all; `-` is standard input or output; InputError says what went wrong."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from condic.errors import CondicError, InputError, OutOfMemoryError, within_memory

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""What is read from: a path, bytes, or an open file (from where it stands to its end)."""

_KILOBYTE = 1024
_LONGEST_SUFFIX = 16
_TEXT = "gives text, not bytes; open it with mode 'rb'"
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied; change its permissions, or those of its folder",
    errno.EPERM: "permission denied; change its permissions, or those of its folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EISDIR: "is a folder; give a file name",
}


def read_source(source: Source, begin: bytes = b"") -> bytes | memoryview:
    """All bytes of a source; for the path `-`, of standard input. Raises InputError, OutOfMemoryError, which name it.

    Of a file that does not begin with `begin`, only the first kilobyte, whose reader will say what is wrong with it:
    the rest, which may be a film or have no end, is not waited for.
    """
    if isinstance(source, bytes):
        return source
    try:
        if isinstance(source, bytearray | memoryview):
            return _bytes_in_a_row(source)
        with _opened(source) as file:
            return _bytes_of(file, begin)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name_of(source)}: not enough memory") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{name_of(source)}: {reason(error)}") from error


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """A source as a binary file that can seek, at its start; one that the caller opened stays open.

    Raises OSError, ValueError (a closed file, or one of text) and InputError.
    """
    with _opened(source) as file:
        whole = getattr(file, "seekable", bool)() and file.tell() == 0
        yield file if whole else io.BytesIO(_bytes_of(file))


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """As `opened`, from where the source stands, and perhaps without seeking."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source if isinstance(source, bytes) else _bytes_in_a_row(source))
    elif isinstance(source, str | os.PathLike) and _is_standard_input(source):
        if sys.stdin is None:
            raise InputError("standard input is closed; give a file name")
        yield sys.stdin.buffer
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield file
    elif hasattr(source, "read"):
        if isinstance(source, io.TextIOBase):
            raise ValueError(_TEXT)
        if not getattr(source, "readable", lambda: True)():
            raise ValueError("is not open for reading")
        yield source
    else:
        raise InputError(f"a {type(source).__name__} is no file; give a path, bytes, or a file open for reading")


def _bytes_in_a_row(source: bytearray | memoryview) -> bytes | memoryview:
    view = memoryview(source)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def _bytes_of(file: BinaryIO, begin: bytes = b"") -> bytes:
    start = b""
    while len(start) < len(begin) and (more := _read(file, _KILOBYTE)):  # a pipe gives what it has
        start += more
    return start + _read(file) if start.startswith(begin) else start


def _read(file: BinaryIO, *size: int) -> bytes:
    data = file.read(*size)
    if isinstance(data, str):
        raise ValueError(_TEXT)
    if data is None:
        raise ValueError("has nothing to read yet and does not wait for it; make it block")
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"gives a {type(data).__name__}, not bytes; give its content as bytes")
    return bytes(data)


def exists(path: Path) -> bool:
    """Whether there is such a file or folder. Raises InputError where the system refuses to look."""
    with named_errors(path):
        try:
            return path.exists()
        except ValueError:
            return False
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return False


def name_of(source: Source) -> str:
    """What messages call a source."""
    if isinstance(source, str | os.PathLike):
        return str(source) or "''"
    return str(getattr(source, "name", "")) or "data"


@contextmanager
def named(source: Source) -> Iterator[None]:
    """Within it, condic's errors get the source's name in front, unless the source is bytes.

    Missing memory is one of them.
    """
    try:
        with within_memory():
            yield
    except CondicError as error:
        if isinstance(source, bytes | bytearray | memoryview):
            raise
        raise type(error)(f"{name_of(source)}: {error}") from error


def write_file(target: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes bytes to a file, or to standard output for `-`. Raises InputError."""
    with writing(target, replace=replace) as file:
        file.write(data)


@contextmanager
def writing(target: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A binary file whose content takes its place at the end, and only if nothing failed; `-` is standard output.

    An existing file is replaced only if `replace`; a device or a pipe is written to at the end. Raises InputError for
    whatever the system refuses, but standard output's errors, which are the program's (`run_program`).
    """
    if is_standard_output(target) or _takes_bytes(target):
        buffer = io.BytesIO()  # some image formats seek
        with named_errors(target):
            yield buffer
        if is_standard_output(target):
            _print(buffer.getbuffer())
        else:
            with named_errors(target), target.open("wb") as file:
                file.write(buffer.getbuffer())
        return
    with named_errors(target), replace_whole(target) as temporary:
        with temporary.open("wb") as file:
            yield file
        if not replace and target.exists():
            raise InputError(_EXISTS.format(target))


def _print(data: memoryview) -> None:
    """Writes to standard output, which may take some bytes at a time: without a buffer, or without blocking."""
    output = sys.stdout.buffer
    while data:
        try:
            written = output.write(data)
        except BlockingIOError as error:
            written = error.characters_written
        if not written:
            select.select([], [output], [])
        data = data[written or 0 :]
    while True:
        try:
            output.flush()
            return
        except BlockingIOError:
            select.select([], [output], [])


def check_target(target: Path, suffixes: tuple[str, ...] = (), *, replace: bool = True) -> None:
    """Raises InputError, before any work is done, if nothing can be written there or the suffix is not allowed."""
    with named_errors(target):  # a name that is too long, say
        _check_target(target, suffixes, replace)


def _check_target(target: Path, suffixes: tuple[str, ...], replace: bool) -> None:
    if is_standard_output(target):
        if sys.stdout is None:
            raise InputError("standard output is closed; give a file name")
        if sys.stdout.isatty():
            raise InputError("standard output is a terminal; redirect it to a file or a program")
        return
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give a file name, or --out-dir")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder; make it first")
    if _takes_bytes(target):
        if not os.access(target, os.W_OK):
            raise InputError(f"{target}: is not writable; choose another, or change its permissions")
        return
    if suffixes and target.suffix.lower() not in suffixes:
        raise InputError(f"{target}: unknown suffix {target.suffix!r}; use {' '.join(suffixes)}")
    if not replace and target.exists():
        raise InputError(_EXISTS.format(target))
    if not os.access(Path(os.path.realpath(target)).parent, os.W_OK):
        raise InputError(f"{target}: the folder is not writable; choose another, or change its permissions")


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Yields a new empty file in the folder of `path`; renames it to `path` on success, removes it on any failure.

    Where `path` is a link, what it leads to is replaced. Permissions stay what they were, and so does the owner where
    that is allowed.
    """
    path = Path(os.path.realpath(path))
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    temporary = path.with_name(f".condic-{os.urandom(8).hex()}{suffix}")
    old = path.stat() if path.exists() else None
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if old is None else 0o600))
    try:
        yield temporary
        if old is not None:
            new = temporary.stat()
            with suppress(OSError):  # who is not root, and owners that a container does not know
                if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
                    os.chown(temporary, old.st_uid, old.st_gid)
            with suppress(PermissionError):  # of file systems that know none
                if stat.S_IMODE(old.st_mode) != 0o600:
                    temporary.chmod(old.st_mode & 0o777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_of_no_room(error: BaseException | None) -> bool:
    """Whether an error comes from a disk, or a quota, that is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Within it, what the system refuses is an InputError that names the path."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why the system, or a library, refused something: one line."""
    known = _REASONS.get(error.errno or 0) if isinstance(error, OSError) else None
    return known or (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


_EXISTS = "{}: exists; give --force to replace it"


def _is_standard_input(path: str | os.PathLike[str]) -> bool:
    return str(path) == "-"


def is_standard_output(path: Path) -> bool:
    """Whether a target stands for standard output."""
    return str(path) in ("-", "/dev/stdout")  # the latter leads to the file that the shell has opened


def _takes_bytes(path: Path) -> bool:
    """Whether something is there that is no file, such as a device or a pipe: written to, and never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()
