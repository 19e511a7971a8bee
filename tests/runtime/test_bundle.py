"""Bundles: a folder and a zip file are the same, and every kind of damage is a BundleError of one line."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condic.errors import BundleError
from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle, bundle_files, check_bundle, read_bundle, write_bundle
from condic.runtime.codec import Codec
from condic.runtime.manifest import QUALITY_LEVELS

Files = dict[str, bytes]
Json = Any


@pytest.fixture(scope="module")
def files(bundle_path: Path) -> Files:
    with zipfile.ZipFile(bundle_path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[[Files], Path]:
    def write(files: Files) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[[Files], Path]:
    def write(files: Files) -> Path:
        path = tmp_path / "bundle.condic"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path

    return write


def central_directory(data: bytes | bytearray) -> int:
    """Where a zip file's list of entries begins."""
    end = data.rindex(b"PK\x05\x06")
    return int.from_bytes(data[end + 16 : end + 20], "little")


def same(a: Bundle, b: Bundle) -> bool:
    return (
        a.manifest == b.manifest
        and a.graphs == b.graphs
        and a.tables.keys() == b.tables.keys()
        and all(np.array_equal(a.tables[name], b.tables[name]) for name in a.tables)
    )


def refusal(path: Path) -> str:
    """The one line with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        read_bundle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def with_manifest(files: Files, change: Callable[[Json], None]) -> Files:
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def with_tables(files: Files, bundle: Bundle, change: Callable[[dict[str, np.ndarray]], None]) -> Files:
    """The files with other tables, their digest put right."""
    tables = dict(bundle.tables)
    change(tables)
    return bundle_files(Bundle(bundle.manifest, tables, bundle.graphs, "changed"))


def test_a_folder_and_a_zip_file_are_the_same_bundle(
    bundle: Bundle, files: Files, write_folder: Callable[[Files], Path], write_zip: Callable[[Files], Path]
) -> None:
    assert same(read_bundle(write_folder(files)), bundle)
    assert same(read_bundle(write_zip(files)), bundle)


def test_writing_a_bundle_twice_gives_the_same_bytes(bundle: Bundle, bundle_path: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(bundle, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert same(read_bundle(tmp_path / "a"), bundle)


def test_the_manifest_says_everything(bundle: Bundle, files: Files) -> None:
    """What a bundle's manifest holds is what was written, so no field is dropped on the way.

    Fields that came later are not in this bundle, which is frozen; they have the values that say nothing.
    """
    written, read = json.loads(files["manifest.json"]), json.loads(json.dumps(asdict(bundle.manifest)))
    assert _without_later_fields(read) == written
    assert bundle.id == bytes.fromhex(bundle.manifest.bundle_id)[:8]
    assert bundle.manifest.graph("synthesis").outputs[0].name == "image"


def _without_later_fields(value: Any) -> Any:
    later = {"contiguous": False, "residual": None, "residual_inputs": [], "guard": None, "large_preview": []}
    if isinstance(value, dict):
        return {k: _without_later_fields(v) for k, v in value.items() if not (k in later and v == later[k])}
    return [_without_later_fields(v) for v in value] if isinstance(value, list) else value


def test_the_small_bundle_stays_small_and_the_same(bundle: Bundle, bundle_path: Path) -> None:
    assert bundle_path.stat().st_size < 300_000
    assert bundle.id.hex() == "80803a3f85d83c55"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_missing_file_is_named(
    files: Files, kind: str, tmp_path: Path, write_folder: Callable[[Files], Path], write_zip: Callable[[Files], Path]
) -> None:
    fewer = {name: data for name, data in files.items() if name != "analysis.onnx"}
    path = write_folder(fewer) if kind == "folder" else write_zip(fewer)
    assert kind == "folder" or "analysis.onnx" in refusal(path)
    refusal(path)


@pytest.mark.parametrize("name", ["manifest.json", "tables.npz", "context_3.onnx"])
def test_any_file_missing_is_refused(files: Files, name: str, write_zip: Callable[[Files], Path]) -> None:
    refusal(write_zip({k: v for k, v in files.items() if k != name}))


@pytest.mark.parametrize("name", ["tables.npz", "context_3.onnx", "synthesis.onnx"])
def test_a_flipped_byte_in_a_folder_is_refused(files: Files, name: str, write_folder: Callable[[Files], Path]) -> None:
    folder = write_folder(files)
    for position in (0, len(files[name]) // 2, len(files[name]) - 1):
        damaged = bytearray(files[name])
        damaged[position] ^= 0x10
        (folder / name).write_bytes(damaged)
        assert f"{name} is damaged" in refusal(folder)


def test_a_flipped_byte_in_a_zip_file_is_refused_or_changes_nothing(
    bundle: Bundle, bundle_path: Path, tmp_path: Path
) -> None:
    """Some bytes of a zip file, time stamps for one, mean nothing to a bundle."""
    data, path, generator = bundle_path.read_bytes(), tmp_path / "damaged.condic", random.Random(7)
    positions = [generator.randrange(len(data)) for _ in range(300)] + list(range(len(data) - 1400, len(data), 3))
    messages = []
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            assert same(read_bundle(path), bundle), position
        except BundleError as error:
            messages.append(str(error))
    assert len(messages) > 400
    assert not any("\n" in message for message in messages)


def test_a_truncated_zip_file_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    data, path = bundle_path.read_bytes(), tmp_path / "cut.condic"
    for length in (0, 1, 30, 1000, len(data) // 2, len(data) - 1000, len(data) - 1):
        path.write_bytes(data[:length])
        refusal(path)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.condic").write_text("not a zip file\n")
    (tmp_path / "empty").mkdir()
    for name in ("text.condic", "empty", "nothing-there.condic"):
        refusal(tmp_path / name)


def test_an_encrypted_zip_file_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    data = bytearray(bundle_path.read_bytes())
    data[6] |= 1
    data[central_directory(data) + 8] |= 1
    (tmp_path / "secret.condic").write_bytes(data)
    refusal(tmp_path / "secret.condic")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"{}", b'{"format_version": 0}', b"[" * 100_000]
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_bad_json_is_refused(
    files: Files, text: bytes, kind: str, write_folder: Callable[[Files], Path], write_zip: Callable[[Files], Path]
) -> None:
    damaged = {**files, "manifest.json": text}
    refusal(write_folder(damaged) if kind == "folder" else write_zip(damaged))


def test_an_archive_packed_otherwise_is_refused(files: Files, write_zip: Callable[[Files], Path]) -> None:
    path = write_zip(files)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 10 : at + 12] = struct.pack("<H", zipfile.ZIP_LZMA)  # of the first entry, which is not
    path.write_bytes(data)
    refusal(path)


def test_another_format_version_is_refused(files: Files, write_zip: Callable[[Files], Path]) -> None:
    message = refusal(write_zip(with_manifest(files, lambda m: m.update(format_version=1))))
    assert "bundle format 1, this condic reads 0" in message


def test_a_manifest_with_a_field_of_another_version_is_named(files: Files, write_zip: Callable[[Files], Path]) -> None:
    message = refusal(write_zip(with_manifest(files, set_in("latents", 0, "mean_delta", to=0.1))))
    assert "Latent has no mean_delta: of another version of condic?" in message


def set_in(*path: Any, to: Any) -> Callable[[Json], None]:
    def change(manifest: Json) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return change


def drop(*path: Any) -> Callable[[Json], None]:
    def change(manifest: Json) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("latents", 2, "chunks", 3), "latent main: the schedule does not code every element once"),
        (drop("latents", 0, "chunks", 1, "boxes", 2), "latent prior: the schedule does not code every element once"),
        (set_in("latents", 2, "chunks", 0, "boxes", 0, "row_phase", to=1), "does not code every element once"),
        (set_in("latents", 2, "chunks", 0, "boxes", 0, "channels", to=[0, 3]), "does not code every element once"),
        (set_in("latents", 2, "chunks", 0, "boxes", 0, "channels", to=[0, 17]), "is outside"),
        (set_in("latents", 2, "chunks", 0, "boxes", 0, "period", to=3), "is outside"),
        (set_in("latents", 2, "chunks", 0, "boxes", 0, "period", to=0), "is outside"),
        (set_in("latents", 1, "stride", to=48), "latent hyper: 8 channels at 1/48"),
        (set_in("latents", 0, "channels", to=9), "no table first.prior of shape (64, 18)"),
        (set_in("latents", 0, "name", to="main"), "a role or latent appears twice"),
        (set_in("latents", 2, "chunks", 1, "graph", to="synthesis"), "synthesis is not an exact graph"),
        (set_in("latents", 2, "chunks", 1, "graph", to=None), "a chunk needs either a graph or a table"),
        (set_in("latents", 0, "chunks", 0, "table", to="first.none"), "no table first.none"),
        (set_in("latents", 2, "chunks", 1, "inputs", 0, to="detail"), "main needs detail before it exists"),
        (set_in("graphs", 3, "role", to="analysis"), "a role or latent appears twice"),
        (set_in("encode", 3, "inputs", 1, to="f9"), "encode: analysis needs f9 before it exists"),
        (set_in("latents", 2, "chunks", 1, "inputs", 1, to="f16"), "encode: latent main depends on f16, which"),
        (set_in("decode", 3, "inputs", 0, to="f8"), "decode: latent main depends on parameters, which"),
        (set_in("decode", 5, "inputs", 0, to="hyper.hat"), "decode: synthesis takes 16 channels at 1/16 as main;"),
        (set_in("decode", 5, "inputs", 1, to="quality.prior_gain"), "synthesis takes 16 channels at 1/0 as gain"),
        (set_in("encode", 0, "outputs", 0, to="main.y"), "encode: prior needs prior.y before it exists"),
        (set_in("encode", 3, "outputs", 0, to="other.y"), "encode: hyper_analysis needs main.y before it exists"),
        (set_in("encode", 3, "target", to="analyses"), "encode: no graph analyses"),
        (set_in("decode", 4, "target", to="secondary"), "decode: step code secondary is unknown"),
        (set_in("decode", 4, "op", to="guess"), "guess"),
        (drop("decode", 1), "decode: synthesis needs f8 before it exists"),
        (drop("decode", 2), "needs hyper.context before it exists"),
        (drop("decode", 5), "decode: no step makes the image"),
        (drop("decode", 5, "inputs", 0), "decode: synthesis takes 5 tensors and gives 1"),
        (drop("encode", 7), "do not code the same latents in the same order"),
        (drop("preview", 1), "preview: no step makes the image"),
        (set_in("encode", 3, "outputs", 0, to="f8"), "encode: analysis makes f8, which exists already"),
        (set_in("preview", 1, "outputs", 1, to="f8"), "preview: prior_synthesis makes f8, which exists already"),
        (set_in("latents", 2, "chunks", 0, "boxes", to=[]), "latent main: a chunk without a box"),
        (set_in("latents", 0, "chunks", 0, "table", to="cdf"), "no table cdf of shape (64, 16)"),
        (set_in("latents", 0, "first_coded", to=257), "latent prior: first_coded 257 is not in 0..256"),
        (set_in("latents", 1, "context_shift", to=-1), "latent hyper: context_shift -1 is not in 0..20"),
        (set_in("latents", 2, "context_limit", to=2**24 + 1), "latent main: context_limit 16777217 is not in"),
        (set_in("graphs", 3, "outputs", 0, "channels", to=15), "latent prior: prior_context_3 does not give 16"),
        (set_in("bundle_id", to="xyz"), "the bundle id is not a SHA-256"),
        (set_in("graphs", 0, "halo", to=-1), "a halo of -1"),
    ],
)  # fmt: skip
def test_an_inconsistent_manifest_is_refused(
    files: Files, change: Callable[[Json], None], message: str, write_zip: Callable[[Files], Path]
) -> None:
    assert message in refusal(write_zip(with_manifest(files, change)))


def test_a_preview_of_later_latents_is_refused(files: Files, write_zip: Callable[[Files], Path]) -> None:
    def change(manifest: Json) -> None:
        manifest["preview"].insert(0, {"op": "code", "target": "hyper", "inputs": [], "outputs": []})

    assert "latents that are not the first ones of the file" in refusal(write_zip(with_manifest(files, change)))


@pytest.mark.parametrize(
    "name", ["cdf", "radius", "first.prior", "first.hyper", "quality.main_gain", "quality.context_2"]
)
def test_a_missing_table_is_named(files: Files, bundle: Bundle, name: str, write_zip: Callable[[Files], Path]) -> None:
    assert name in refusal(write_zip(with_tables(files, bundle, lambda tables: tables.pop(name))))


def test_a_missing_known_input_is_named(files: Files, bundle: Bundle, write_zip: Callable[[Files], Path]) -> None:
    name = "known.context_1.parameters"
    assert name in refusal(write_zip(with_tables(files, bundle, lambda tables: tables.pop(name))))


def test_a_quality_table_without_all_levels_is_refused(
    files: Files, bundle: Bundle, write_zip: Callable[[Files], Path]
) -> None:
    def shorten(tables: dict[str, np.ndarray]) -> None:
        tables["quality.main_gain"] = tables["quality.main_gain"][: QUALITY_LEVELS - 1]

    assert "table quality.main_gain has shape (63, 16)" in refusal(write_zip(with_tables(files, bundle, shorten)))


def test_tables_that_need_pickle_are_refused(files: Files, write_zip: Callable[[Files], Path]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, cdf=np.array([print], dtype=object))
    message = refusal(
        write_zip(with_manifest({**files, "tables.npz": buffer.getvalue()}, lambda m: m["files"].pop("tables.npz")))
    )
    assert "allow_pickle" in message


def test_entropy_tables_that_the_coder_rejects_are_refused(
    files: Files, bundle: Bundle, write_zip: Callable[[Files], Path]
) -> None:
    def spoil(tables: dict[str, np.ndarray]) -> None:
        tables["cdf"] = np.zeros_like(tables["cdf"])

    path = write_zip(with_tables(files, bundle, spoil))
    with pytest.raises(BundleError, match="unusable entropy tables"):
        Codec(read_bundle(path), "ort", BackendOptions(threads=1))


@pytest.mark.parametrize("name", ["../evil.onnx", "/etc/hostname", "sub/graph.onnx", "..", "a/../../b"])
def test_names_that_leave_the_bundle_are_refused(
    files: Files, name: str, tmp_path: Path, write_folder: Callable[[Files], Path]
) -> None:
    folder = write_folder(with_manifest(files, lambda m: m["files"].update({name: "0" * 64})))
    (tmp_path / "evil.onnx").write_bytes(b"outside")
    refusal(folder)


def test_a_zip_file_is_never_unpacked_onto_the_disk(
    files: Files, tmp_path: Path, write_zip: Callable[[Files], Path]
) -> None:
    path = write_zip({**files, "../evil.onnx": b"outside"})
    before = sorted(tmp_path.parent.rglob("*"))
    read_bundle(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_zip_file_that_claims_to_be_huge_is_refused_before_it_is_read(
    files: Files, tmp_path: Path, write_zip: Callable[[Files], Path]
) -> None:
    path = write_zip(files)
    data = bytearray(path.read_bytes())
    entry = central_directory(data)
    data[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    assert "too many or too large files" in refusal(path)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(*path, key), *places(inner, (*path, key))]]


@pytest.mark.parametrize("value", [None, -1, 1.5, 10**30, "", "x", [], {}, [[]], [{"x": 1}]], ids=repr)
def test_a_manifest_with_any_value_replaced_never_crashes_the_reader(
    files: Files, value: Json, write_folder: Callable[[Files], Path]
) -> None:
    folder = write_folder(files)
    every, messages = places(json.loads(files["manifest.json"])), []
    for place in random.Random(repr(value)).sample(every, 70):
        (folder / "manifest.json").write_bytes(with_manifest(files, set_in(*place, to=value))["manifest.json"])
        try:
            read_bundle(folder)
        except BundleError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("scales",), "64"),
        (("alignment",), 128.0),
        (("latents", 0, "first_coded"), None),
        (("latents", 0, "context_shift"), 1.5),
        (("latents", 0, "context_limit"), "1023"),
        (("graphs", 0, "inputs", 0, "channels"), None),
        (("graphs", 0, "inputs", 0, "name"), 3),
        (("graphs", 0, "precision"), "double"),
        (("graphs", 1, "known_answer"), None),
        (("encode", 0, "outputs"), "prior.y"),
    ],
    ids=lambda x: ".".join(map(str, x)) if isinstance(x, tuple) else repr(x),
)
def test_a_value_of_the_wrong_type_is_refused(
    files: Files, place: tuple[Any, ...], value: Json, write_zip: Callable[[Files], Path]
) -> None:
    refusal(write_zip(with_manifest(files, set_in(*place, to=value))))


@pytest.mark.parametrize(("alignment", "problem"), [
    (0, "alignment 0 is not in 1..4096"), (-128, "alignment -128"), (2**20, "alignment 1048576"),
    (4096, "latent prior: more than 16777216 elements in its schedule"),
])  # fmt: skip
def test_an_alignment_that_no_memory_holds_is_refused_before_it_is_tried(
    files: Files, alignment: int, problem: str, write_zip: Callable[[Files], Path]
) -> None:
    changed = with_manifest(files, set_in("alignment", to=alignment))
    if alignment == 4096:
        changed = with_manifest(changed, set_in("latents", 0, "channels", to=2**17))
    assert problem in refusal(write_zip(changed))


@pytest.mark.parametrize("kind", ["U3", "S3", "V3", "?", "c8", [("a", "f4")]])
def test_tables_of_what_is_no_real_number_are_refused(bundle: Bundle, kind: Any) -> None:
    for name in ("quality.main_gain", "first.prior", "cdf"):
        name = next(x for x in bundle.tables if x.startswith(name))
        odd = np.zeros(bundle.tables[name].shape, np.dtype(kind))
        with pytest.raises(BundleError, match=f"table {name} holds no real numbers"):
            check_bundle(replace(bundle, tables={**bundle.tables, name: odd}))


@pytest.mark.parametrize("step", [0, 1025, 2**40])
def test_steps_of_a_guard_out_of_range_are_refused(data_folder: Path, step: int) -> None:
    bundle = read_bundle(data_folder / "cic-sr-t.condic")
    latents = list(bundle.manifest.latents)
    k = next(k for k, latent in enumerate(latents) if latent.guard)
    latents[k] = replace(latents[k], guard=replace(latents[k].guard, residual_step=step))
    with pytest.raises(BundleError, match=r"a step that is not in 1\.\.1024"):
        check_bundle(replace(bundle, manifest=replace(bundle.manifest, latents=tuple(latents))))


def test_a_context_that_lacks_an_input_is_refused(files: Files, write_zip: Callable[[Files], Path]) -> None:
    assert "context_1" in refusal(write_zip(with_manifest(files, drop("latents", 2, "chunks", 1, "inputs", 0))))


def test_a_large_preview_needs_the_first_latents_too(bundle: Bundle) -> None:
    steps = bundle.manifest.decode
    hyper = next(x for x in steps if x.op == "code" and x.target == "hyper")
    large = (hyper, *(x for x in steps if x is not hyper))
    with pytest.raises(BundleError, match="not the first ones"):
        check_bundle(replace(bundle, manifest=replace(bundle.manifest, large_preview=large)))


def test_a_latent_without_a_guard_takes_no_guarded_graph(bundle: Bundle) -> None:
    role = next(chunk.graph for latent in bundle.manifest.latents for chunk in latent.chunks if chunk.graph)
    graphs = tuple(
        replace(x, precision="guarded", known_answer=None) if x.role == role else x for x in bundle.manifest.graphs
    )
    with pytest.raises(BundleError, match="is not an exact graph"):
        check_bundle(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)))


def test_tables_cannot_be_written_to(bundle: Bundle) -> None:
    assert not any(table.flags.writeable for table in bundle.tables.values())


def test_a_latent_that_is_not_coded_or_twice_is_refused(bundle: Bundle) -> None:
    code = next(x for x in bundle.manifest.decode if x.op == "code")
    for kind in ("twice", "never"):
        steps = {
            name: (code, *getattr(bundle.manifest, name)) if kind == "twice" else getattr(bundle.manifest, name)
            for name in ("encode", "decode")
        }
        latents = bundle.manifest.latents
        if kind == "never":
            latents = (*latents, replace(bundle.manifest.latent("hyper"), name="spare"))
        manifest = replace(bundle.manifest, latents=latents, **(steps if kind == "twice" else {}))
        message = "prior needs prior.y before" if kind == "twice" else "decoding codes prior, hyper, main; there are"
        with pytest.raises(BundleError, match=message):
            check_bundle(replace(bundle, manifest=manifest))
