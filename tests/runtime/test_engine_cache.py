"""Engines on disk: found for the same graph, GPU and TensorRT alone, and never loaded when damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from condic.errors import BackendError
from condic.runtime.engine_cache import (
    PROFILES,
    Engine,
    EngineKey,
    Profile,
    Search,
    Target,
    engine_folder,
    engine_path,
    read_engine,
    stored_engines,
    write_engine,
)

HERE = Target("NVIDIA H200", "9.0", "tensorrt", "10.3.0")
KEY = EngineKey("ab" * 32, "analysis", "fp16", HERE, PROFILES["1080p"])
SIZE = (1152, 1920)


def find(folder: Path, target: Target = HERE, size: tuple[int, int] = SIZE, role: str = "analysis") -> Engine:
    return Search(folder, KEY.bundle_id, role, ("fp16", "fp32"), target, size).read()


def store(folder: Path, key: EngineKey = KEY, plan: bytes = b"a plan") -> Path:
    return write_engine(folder, Engine(key, plan, {"layers": 3}))


def test_what_was_written_is_found(tmp_path: Path):
    path = store(tmp_path)
    assert path == engine_path(tmp_path, KEY)
    assert find(tmp_path) == read_engine(path) == Engine(KEY, b"a plan", {"layers": 3})
    assert [x.name for x in path.parent.iterdir()] == [path.name], "nothing temporary is left"


def test_writing_again_replaces_the_engine(tmp_path: Path):
    assert store(tmp_path) == store(tmp_path, plan=b"a better plan")
    assert find(tmp_path).plan == b"a better plan"


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, gpu="NVIDIA H100 80GB HBM3"),
        replace(HERE, compute_capability="8.9"),
        replace(HERE, flavour="tensorrt-rtx"),
        replace(HERE, version="10.3.1"),
        replace(HERE, version="10.2.9"),
    ],
)
def test_a_plan_of_another_gpu_or_tensorrt_is_passed_over_and_named(tmp_path: Path, other: Target):
    path = store(tmp_path, replace(KEY, target=other))
    with pytest.raises(BackendError) as error:
        find(tmp_path)
    assert str(path) in str(error.value)
    assert f"built for {other}, this is {HERE}" in str(error.value)
    assert "condic-export --engines" in str(error.value)


def test_another_bundle_role_or_precision_is_not_found(tmp_path: Path):
    for key in (replace(KEY, bundle_id="cd" * 32), replace(KEY, role="synthesis"), replace(KEY, precision="exact")):
        store(tmp_path, key)
        with pytest.raises(BackendError, match="no engine of analysis"):
            find(tmp_path)
    with pytest.raises(BackendError, match=f"none in {tmp_path}"):
        find(tmp_path, role="hyper_synthesis")


def test_an_engine_renamed_to_another_role_or_bundle_is_not_believed(tmp_path: Path):
    path = store(tmp_path, replace(KEY, role="synthesis"))
    path.rename(path.with_name(path.name.replace("synthesis", "analysis")))
    with pytest.raises(BackendError, match="no engine of analysis"):
        find(tmp_path)


def test_half_precision_is_preferred_then_the_smallest_profile_that_takes_the_size(tmp_path: Path):
    for precision in ("fp32", "fp16"):
        for name in ("4k", "1080p", "512"):
            store(tmp_path, replace(KEY, precision=precision, profile=PROFILES[name]), f"{precision} {name}".encode())
    assert find(tmp_path).plan == b"fp16 1080p"
    assert find(tmp_path, size=(512, 768)).plan == b"fp16 512"
    assert find(tmp_path, size=(1920, 1152)).plan == b"fp16 4k", "portrait"
    engine_path(tmp_path, replace(KEY, profile=PROFILES["4k"])).unlink()
    assert find(tmp_path, size=(1920, 1152)).plan == b"fp32 4k"


@pytest.mark.parametrize("size", [(2176, 3968), (3840, 2176), (2304, 128)])
def test_an_image_outside_every_profile_is_told_what_they_take(tmp_path: Path, size: tuple[int, int]):
    store(tmp_path, replace(KEY, profile=PROFILES["4k"]))
    with pytest.raises(BackendError, match=f"it takes 4k, not {size[0]}x{size[1]}"):
        find(tmp_path, size=size)


def test_a_damaged_engine_is_told_before_those_that_are_for_others(tmp_path: Path):
    store(tmp_path, replace(KEY, profile=PROFILES["512"]))
    path = store(tmp_path, replace(KEY, profile=PROFILES["1080p"]))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BackendError, match=r"none fits \(.*damaged .*; .*it takes 512, not 1152x1920\)"):
        find(tmp_path, size=(1152, 1920))


def test_every_damaged_byte_is_noticed_and_another_engine_found_instead(tmp_path: Path):
    path = store(tmp_path)
    whole = path.read_bytes()
    for k in range(len(whole)):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        with pytest.raises(BackendError, match="no engine of analysis"):
            find(tmp_path)
        with pytest.raises(BackendError, match=r"build it again"):
            read_engine(path)
    for k in range(len(whole)):
        path.write_bytes(whole[:k])
        with pytest.raises(BackendError, match=r"build it again"):
            read_engine(path)
        with pytest.raises(BackendError, match=str(path)):
            find(tmp_path)
    store(tmp_path, replace(KEY, profile=PROFILES["4k"]), b"the large one")
    assert find(tmp_path).plan == b"the large one"


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path):
    path = store(tmp_path)
    path.write_bytes(path.read_bytes()[:40] + b"\xff" * 4 + b"{}")
    with pytest.raises(BackendError, match="cut short"):
        find(tmp_path)


def test_a_version_compatible_engine_runs_under_later_versions_of_its_major(tmp_path: Path):
    store(tmp_path, replace(KEY, options=("version-compatible",)))
    assert find(tmp_path, replace(HERE, version="10.14.1"))
    for version in ("10.2.0", "11.0.0"):
        with pytest.raises(BackendError, match="built for"):
            find(tmp_path, replace(HERE, version=version))


def test_a_hardware_compatible_engine_runs_on_ampere_and_later(tmp_path: Path):
    store(tmp_path, replace(KEY, options=("hardware-compatible",)))
    assert find(tmp_path, replace(HERE, gpu="Orin", compute_capability="8.7"))
    with pytest.raises(BackendError, match=r"needs compute capability 8\.0 or higher"):
        find(tmp_path, replace(HERE, gpu="Tesla T4", compute_capability="7.5"))


def test_an_engine_built_without_a_gpu_runs_on_any_with_its_capability(tmp_path: Path):
    store(tmp_path, replace(KEY, target=replace(HERE, gpu="", compute_capability="8.6")))
    assert find(tmp_path)
    assert find(tmp_path, replace(HERE, compute_capability="12.0"))
    with pytest.raises(BackendError, match=r"needs compute capability 8\.6 or higher"):
        find(tmp_path, replace(HERE, compute_capability="8.0"))


@pytest.mark.parametrize(
    ("capability", "runs"),
    [("8.0", True), ("8.9", True), ("12.1", True), ("8.7", False), ("9.0", False), ("10.0", False)],
)
def test_tensorrt_rtx_is_not_asked_to_run_where_it_does_not(tmp_path: Path, capability: str, runs: bool):
    rtx = replace(HERE, flavour="tensorrt-rtx", version="1.7.1.116")
    store(tmp_path, replace(KEY, target=replace(rtx, gpu="", compute_capability="8.0")))
    here = replace(rtx, gpu="some GPU", compute_capability=capability)
    if runs:
        assert find(tmp_path, here)
    else:
        with pytest.raises(BackendError, match=rf"does not run on this GPU's compute capability, {capability} \(8\.0,"):
            find(tmp_path, here)
    with pytest.raises(BackendError, match=r"needs compute capability 8\.0 or higher"):
        find(tmp_path, replace(here, compute_capability="7.5"))


def test_a_stripped_engine_is_not_run(tmp_path: Path):
    store(tmp_path, replace(KEY, options=("weight-stripped",)))
    with pytest.raises(BackendError, match="weights are stripped"):
        find(tmp_path)


def test_profiles_call_themselves_by_name_or_by_their_sizes():
    assert [str(profile) for profile in PROFILES.values()] == list(PROFILES)
    assert str(Profile((128, 256), (512, 512), (640, 1024))) == "128x256,512x512,640x1024"
    for profile in PROFILES.values():
        assert profile.takes(profile.smallest)
        assert profile.takes(profile.usual)
        assert profile.takes(profile.largest)


def test_the_folder_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CONDIC_ENGINES", raising=False)
    monkeypatch.setenv("CONDIC_CACHE", str(tmp_path))
    assert engine_folder() == tmp_path / "engines"
    monkeypatch.setenv("CONDIC_CACHE", "")
    with pytest.raises(BackendError, match="CONDIC_ENGINES"):
        engine_folder()
    monkeypatch.setenv("CONDIC_ENGINES", str(tmp_path / "mine"))
    assert engine_folder() == tmp_path / "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendError, match="file"):
        store(tmp_path / "file")


def test_the_precision_that_is_named_first_is_taken(tmp_path: Path) -> None:
    store(tmp_path, replace(KEY, precision="fp32", profile=PROFILES["512"]), b"fp32")
    store(tmp_path, replace(KEY, profile=PROFILES["4k"]), b"fp16")
    assert find(tmp_path, size=(512, 512)).plan == b"fp16"


def test_an_engine_that_cannot_be_opened_is_told_of(tmp_path: Path) -> None:
    (tmp_path / ("a" * 16) / "role-x.engine").mkdir(parents=True)
    ((_, what),) = stored_engines(tmp_path, "a" * 64, "role")
    assert isinstance(what, str)
