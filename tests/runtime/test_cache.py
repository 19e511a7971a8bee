"""The cache: what was put comes back, what is damaged does not, old files go, and nothing ever fails because of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from condic.runtime.bundle import Bundle
from condic.runtime.cache import MOST_FILES, Cache, cache_folder, user_cache
from condic.runtime.codec import Codec


def test_what_was_put_comes_back_for_the_same_key_alone(tmp_path: Path):
    cache = Cache(tmp_path / "folder")
    cache.put(b"compiled", "a", b"bc")
    assert cache.get("a", b"bc") == b"compiled"
    assert cache.get("ab", b"c") is None


def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path):
    cache = Cache(tmp_path)
    cache.put(b"compiled", "a")
    (path,) = tmp_path.iterdir()
    for damaged in (b"", path.read_bytes()[:-1], path.read_bytes()[:-1] + b"x"):
        path.write_bytes(damaged)
        assert cache.get("a") is None


def test_the_files_used_last_are_kept(tmp_path: Path):
    cache = Cache(tmp_path)
    for k in range(MOST_FILES):
        cache.put(b"", str(k))
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (1000 + k, 1000 + k))
    assert cache.get("0") == b""
    cache.put(b"", "new")
    assert len(list(tmp_path.iterdir())) == MOST_FILES
    assert cache.get("0") == b""
    assert cache.get("new") == b""


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "folder")
    cache.put(b"compiled", "a")
    assert cache.get("a") is None


def test_the_folder_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONDIC_CACHE", str(tmp_path))
    user_cache("openvino").put(b"compiled", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["openvino"]
    monkeypatch.setenv("CONDIC_CACHE", "")
    assert user_cache("openvino").get("a") is None


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="as freedesktop.org has it")
@pytest.mark.parametrize(("given", "expected"), [("{}/xdg", "{}/xdg"), ("xdg", "{}/.cache"), ("", "{}/.cache")])
def test_a_relative_folder_for_caches_is_ignored(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CONDIC_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given.format(tmp_path))
    assert cache_folder("engines") == Path(expected.format(tmp_path)) / "condic" / "engines"


def test_openvino_loads_from_the_cache_and_codes_the_same(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv("CONDIC_CACHE", str(tmp_path))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def decoded() -> tuple[bytes, str]:
        codec = Codec(bundle, "openvino")
        data = codec.encode(image, 32)
        return data, codec.decode(data, latents=True).latents_sha256()

    compiled = decoded()
    files = sorted((tmp_path / "openvino").iterdir())
    assert len(files) == len(bundle.manifest.graphs)
    for path in files[1:]:
        path.write_bytes(path.read_bytes()[:-1])
    assert decoded() == compiled, "damaged files are compiled again"

    def never(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(openvino.Core, "compile_model", never)
    assert decoded() == compiled
