from __future__ import annotations

import errno
import io
import os
import stat
import sys
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from condic.errors import InputError, OutOfMemoryError
from condic.files import check_target, name_of, opened, read_source, replace_whole, write_file, writing


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with replace_whole(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".bin"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def fail_halfway() -> None:
        with replace_whole(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_is_a_folder_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="folder"), replace_whole(target) as temporary:
        temporary.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replace_whole(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"secret")
    target.chmod(mode)
    with replace_whole(target) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600, "it can be written to, by its owner alone"
        temporary.write_bytes(b"new")
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", mode)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone gives files away")
def test_a_file_that_root_replaces_keeps_its_owner(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    os.chown(target, 1234, 1235)
    with replace_whole(target) as temporary:
        temporary.write_bytes(b"new")
    found = target.stat()
    assert (target.read_bytes(), found.st_uid, found.st_gid) == (b"new", 1234, 1235)


@pytest.mark.parametrize(
    ("given", "message"),
    [("text", "gives text, not bytes"), (None, "does not wait for it"), (3, "gives a int, not bytes")],
)
def test_what_gives_no_bytes_is_told(given: object, message: str) -> None:
    file = SimpleNamespace(read=lambda *_: given, name="upload")
    with pytest.raises(InputError, match=f"^upload: .*{message}"):
        read_source(file)
    file.read = lambda *_: bytearray(b"bytes")
    assert read_source(file) == b"bytes"


@pytest.mark.parametrize("target", ["-", "a.png"])
def test_what_fails_while_it_is_made_is_one_line(tmp_path: Path, target: str) -> None:
    path = Path(target) if target == "-" else tmp_path / target
    with pytest.raises(InputError, match="encoder error"), writing(path):
        raise OSError("encoder error -2 when writing image file")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_with_a_name_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    check_target(pipe, (".png",), replace=False)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        write_file(pipe, b"data", replace=False)
        assert read.result(60) == b"data"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("name", ["n" * 250 + ".png", "\N{GRINNING FACE}" * 61 + ".png", "n." + "s" * 250])
def test_a_name_of_any_legal_length_works(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    with replace_whole(target) as temporary:
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "a.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("no links here")
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_an_existing_file_is_kept_if_asked_even_if_it_came_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"

    def write() -> None:
        with writing(target, replace=False) as file:
            file.write(b"new")
            target.write_bytes(b"meanwhile")

    with pytest.raises(InputError, match=r"a\.bin: exists; give --force"):
        write()
    assert target.read_bytes() == b"meanwhile"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied; change its permissions, or those of its folder"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=words) as caught:
        write_file(tmp_path / "a.bin", b"x")
    assert str(caught.value).startswith(str(tmp_path / "a.bin"))
    assert not list(tmp_path.iterdir())


def test_targets_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    check_target(tmp_path / "a.png")
    check_target(tmp_path / "b.PNG", (".png",), replace=False)
    for target, words in (
        (tmp_path, "is a folder"), (tmp_path / "none" / "a.png", "no such folder"), (tmp_path / "a.gif", "suffix"),
        (tmp_path / "a.png", "exists"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            check_target(target, (".png",), replace=False)


def test_sources_are_read_whole_from_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123")
    assert read_source(path) == read_source(str(path)) == read_source(b"0123") == read_source(bytearray(b"0123"))
    file = io.BytesIO(b"0123")
    file.seek(2)
    assert read_source(file) == b"23"
    assert not file.closed
    assert (name_of(path), name_of(b""), name_of(file)) == (str(path), "data", "data")
    with path.open("rb") as opened:
        assert name_of(opened) == str(path)


class Drops(io.RawIOBase):
    """A pipe that gives three bytes at a time."""

    def __init__(self, data: bytes, *, endless: bool = False) -> None:
        self._data, self._endless, self.given = io.BytesIO(data), endless, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        drop = self._data.read(3) or bytes(3 * self._endless)
        buffer[: len(drop)] = drop
        self.given += len(drop)
        return len(drop)


def test_a_file_that_begins_otherwise_is_not_read_to_its_end() -> None:
    film = Drops(b"film", endless=True)
    assert read_source(film, b"CDIC") == b"film"
    assert film.given == 4
    for data in (b"CDIC and more", b"CDIC", b"CD", b""):
        assert read_source(Drops(data), b"CDIC") == data


def test_what_does_not_fit_into_memory_is_one_line() -> None:
    class Vast(Drops):
        def read(self, size: int = -1) -> bytes:
            raise MemoryError

    with pytest.raises(OutOfMemoryError, match=r"^data: not enough memory$"):
        read_source(Vast(b""))


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="there is no /dev/null")
def test_a_device_needs_no_suffix() -> None:
    check_target(Path("/dev/null"), (".cdic",), replace=False)
    write_file(Path("/dev/null"), b"x", replace=False)
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_link_into_a_folder_that_is_not_writable_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.bin").write_bytes(b"x")
    (tmp_path / "closed").chmod(0o555)
    (tmp_path / "a.bin").symlink_to(tmp_path / "closed" / "a.bin")
    with pytest.raises(InputError, match="the folder is not writable"):
        check_target(tmp_path / "a.bin")


def test_a_file_system_without_permissions_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    monkeypatch.setattr(Path, "chmod", _refusing(errno.EPERM))
    write_file(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def _refusing(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_file_that_is_opened_begins_where_it_stood() -> None:
    file = io.BytesIO(b"abcdef")
    file.seek(3)
    with opened(file) as same:
        same.seek(0)
        assert same.read() == b"def"


def test_buffers_of_any_type_are_read_as_bytes() -> None:
    values = memoryview(array("h", range(4)))
    assert bytes(read_source(values)) == values.tobytes()
    assert len(read_source(values)) == 8
    assert bytes(read_source(values[::2])) == values[::2].tobytes()
