"""`-` is standard input or output: nothing but the bytes on the one, messages on standard error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condic.runtime.codec import Codec

Program = Callable[..., Any]


def test_a_pipeline_gives_what_files_give(program: Program, pictures: list[Path], codec: Codec) -> None:
    encoded = program("encode", "-", "-", "-q", 11, stdin=pictures[1].read_bytes())
    assert encoded.code == 0
    assert encoded.out == codec.encode(pictures[1], 11)
    assert encoded.err.startswith(f"-: {len(encoded.out)} bytes")
    decoded = program("decode", "-", "-", stdin=encoded.out)
    assert decoded.code == 0
    assert decoded.err.startswith("-: 50x40")
    with Image.open(io.BytesIO(decoded.out)) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), codec.decode(encoded.out).image)


@pytest.mark.parametrize("kind", ["jpg", "webp", "tiff", "bmp", "ppm"])
def test_a_picture_on_standard_output_has_the_format_asked_for(
    program: Program, pictures: list[Path], codec: Codec, kind: str
) -> None:
    done = program("preview", "-", "-", "--format", kind, stdin=codec.encode(pictures[0], 3))
    with Image.open(io.BytesIO(done.out)) as image:
        assert image.size == (50, 40)
        assert image.format == {"jpg": "JPEG"}.get(kind, kind.upper())


def test_a_file_that_is_called_so_has_its_folder_in_front(program: Program, pictures: list[Path], codec: Codec) -> None:
    file = pictures[0].parent / "-"
    file.write_bytes(codec.encode(pictures[2], 5))
    assert program("info", "./-").out.startswith(f"{file}: 50x40 grey".encode())
    assert program("encode", pictures[0], "./-").err == f"condic-run: {file}: unknown suffix ''; use .cdic\n"


def test_facts_about_bytes_on_standard_output_go_to_standard_error(program: Program, pictures: list[Path]) -> None:
    done = program("encode", pictures[0], "-", "--json")
    assert done.out.startswith(b"CDIC")
    assert json.loads(done.err)["bytes"] == len(done.out)


def test_info_and_verify_read_standard_input(program: Program, pictures: list[Path], codec: Codec) -> None:
    data = codec.encode(pictures[2], 5)
    assert program("info", "-", stdin=data).out.startswith(b"-: 50x40 grey, quality 5")
    digest = codec.decode(data, latents=True).latents_sha256()
    assert program("verify", "-", stdin=data).out.decode() == f"-: intact\nlatents_sha256 {digest}\n"
    damaged = program("verify", "-", stdin=data[:-1])
    assert (damaged.code, damaged.out) == (1, b"")
    assert damaged.err.startswith("condic-run: -: truncated")


def test_an_empty_or_foreign_standard_input_is_refused(program: Program) -> None:
    for words, stdin in ((["encode", "-", "-"], b""), (["decode", "-", "-"], b"GIF89a"), (["info", "-"], b"")):
        done = program(*words, stdin=stdin)
        assert (done.code, done.out) == (2, b"")
        assert len(done.err.splitlines()) == 1
        assert done.err.startswith("condic-run: -: ")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
@pytest.mark.parametrize("words", [["info"], ["verify"], ["decode", "-"], ["encode", "-"]])
def test_what_has_no_end_is_refused_by_how_it_begins(program: Program, words: list[str]) -> None:
    command, *target = words
    done = program(command, "/dev/zero", *target)
    assert done.err.startswith("condic-run: /dev/zero: not a")
    assert len(done.err.splitlines()) == 1


def test_a_terminal_gets_no_bytes(program: Program, pictures: list[Path]) -> None:
    if sys.platform == "win32":
        pytest.skip("needs a terminal of POSIX")
    import pty

    _, terminal = pty.openpty()
    done = program("encode", pictures[0], "-", stdout=terminal)
    assert done.code == 2
    assert "standard output is a terminal; redirect it" in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell of POSIX")
def test_closed_standard_streams_harm_nothing(pictures: list[Path], bundle_path: Path, tmp_path: Path) -> None:
    def run(arguments: str, streams: str) -> tuple[int, str]:
        program = f"{sys.executable} -c 'from condic.runtime.cli import main; main()'"
        line = f"{program} {arguments} --model {bundle_path} {streams}"
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stderr

    assert run("encode a.png a.cdic", "<&- >&-") == (0, "")
    assert run("decode a.cdic d.png", "<&- >&- 2>&-") == (0, "")
    assert run("encode a.png --out-dir out", "<&- >&- 2>&-") == (0, "")
    with Image.open(tmp_path / "d.png") as image:
        assert image.size == (50, 40)
    assert run("encode a.png -", ">&-") == (2, "condic-run: standard output is closed; give a file name\n")
    assert run("encode - b.cdic", "<&-") == (2, "condic-run: -: standard input is closed; give a file name\n")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are text")
def test_names_that_are_no_text_are_escaped(program: Program, pictures: list[Path], tmp_path: Path) -> None:
    name = os.fsdecode(b"n\xff.cdic")
    done = program("encode", pictures[0], name)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(b"n\\udcff.cdic: ")
    assert (tmp_path / name).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["encode", "a.png", "-"], ["info", "a.cdic"], ["--help"]])
def test_a_full_disk_behind_standard_output_is_one_line(
    program: Program, pictures: list[Path], tmp_path: Path, codec: Codec, words: list[str]
) -> None:
    (tmp_path / "a.cdic").write_bytes(codec.encode(pictures[0], 3))
    with Path("/dev/full").open("wb") as full:
        done = program(*words, stdout=full)
    assert done.code == 2
    assert done.err == "condic-run: standard output: the disk is full\n"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("buffered", [True, False])
def test_what_standard_output_takes_a_part_of_is_an_error(
    pictures: list[Path], tmp_path: Path, bundle_path: Path, buffered: bool
) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    command = [
        sys.executable,
        *([] if buffered else ["-u"]),
        "-B",
        "-c",
        f"{code}from condic.runtime.cli import main\nmain()",
    ]
    with (tmp_path / "out.cdic").open("wb") as out:
        done = subprocess.run(
            [*command, "encode", pictures[0], "-", "--model", bundle_path],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        2,
        b"condic-run: standard output: the file is too large for this system\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("buffered", [True, False])
def test_a_pipe_that_does_not_block_gets_everything(
    pictures: list[Path], bundle_path: Path, codec: Codec, buffered: bool
) -> None:
    code = "import os, fcntl\nfcntl.fcntl(1, 1031, 4096)\nos.set_blocking(1, False)\n"  # F_SETPIPE_SZ
    data = codec.encode(pictures[0], 20)
    process = subprocess.Popen(
        [sys.executable, *([] if buffered else ["-u"]), "-c", f"{code}from condic.runtime.cli import main\nmain()",
         "decode", "-", "-", "--format", "bmp", "--model", bundle_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(data, timeout=120)
    assert process.returncode == 0, err
    with Image.open(io.BytesIO(out)) as image:
        assert np.array_equal(np.asarray(image), codec.decode(data).image)


@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX")
def test_standard_output_may_be_called_by_its_other_name(
    pictures: list[Path], tmp_path: Path, bundle_path: Path, codec: Codec
) -> None:
    command = [sys.executable, "-c", "from condic.runtime.cli import main\nmain()"]
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before ")
        out.flush()
        subprocess.run([*command, "encode", pictures[0], "/dev/stdout", "--model", bundle_path], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"before " + codec.encode(pictures[0], 32)


def test_standard_output_that_cannot_be_written_to_is_one_line(
    program: Program, pictures: list[Path], tmp_path: Path, codec: Codec
) -> None:
    (tmp_path / "a.cdic").write_bytes(codec.encode(pictures[0], 3))
    for words in (["info", "a.cdic"], ["verify", "a.cdic"], ["encode", "a.png", "-"]):
        with Path(os.devnull).open("rb") as only_read:
            done = program(*words, stdout=only_read)
        assert (done.code, done.err) == (2, "condic-run: standard output: it is not open for writing\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_closed_pipe_ends_the_program_quietly(pictures: list[Path], bundle_path: Path) -> None:
    command = [sys.executable, "-c", "from condic.runtime.cli import main\nmain()"]
    process = subprocess.Popen(
        [*command, "encode", pictures[0], "-", "--model", bundle_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == -13, "SIGPIPE; a shell says 141"
