"""condic.open: what a file is, without decoding it; and the ways in which files and images can be given."""

from __future__ import annotations

import io
import json
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import condic
from condic.errors import LimitError
from condic.runtime.bitstream import Limits
from condic.runtime.codec import Codec
from condic.runtime.image_files import write_image
from condic.runtime.metadata import Metadata
from condic.runtime.pictures import as_picture

Draw = Callable[..., np.ndarray]
METADATA = condic.Metadata(b"profile", b"II*\0\x08\0\0\0\0\0\0\0\0\0", b"<x/>")


@pytest.fixture
def path(tmp_path: Path, codec: Codec, drawing: Draw) -> Path:
    write_image(tmp_path / "a.png", drawing(40, 50, 4), METADATA)
    (tmp_path / "a.cdic").write_bytes(codec.encode(tmp_path / "a.png", 7))
    return tmp_path / "a.cdic"


def test_an_opened_file_says_what_it_is(path: Path, codec: Codec, bundle_path: Path) -> None:
    coded = condic.open(path, model=bundle_path)
    assert (coded.size, coded.mode, coded.quality) == ((50, 40), "RGBA", 7)
    assert coded.model_id == codec.bundle.id.hex()
    assert coded.metadata == METADATA
    assert repr(coded) == f"<CodedImage 50x40 RGBA, quality 7, {path.stat().st_size} bytes>"
    expected = codec.decode(path.read_bytes())
    assert np.array_equal(coded.decode().image, expected.image)
    assert coded.decode().metadata == METADATA
    assert list(coded.preview(latents=True).latents) == ["prior"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_modes_are_pillow_s(codec: Codec, drawing: Draw, channels: int, mode: str) -> None:
    assert condic.open(codec.encode(drawing(8, 9, channels), 3)).mode == mode


def test_looking_at_a_file_loads_neither_numpy_nor_a_model(path: Path) -> None:
    code = "import sys, json, condic; condic.open(sys.argv[1]).metadata; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "onnxruntime"} & set(json.loads(done.stdout))


def test_files_are_taken_by_path_as_bytes_and_open(path: Path, bundle_path: Path) -> None:
    expected = condic.decode(path, model=bundle_path)
    with path.open("rb") as file:
        file.seek(0)
        assert np.array_equal(condic.decode(file, bundle_path), expected)
        assert not file.closed
    data = path.read_bytes()
    givers: list[Callable[[], condic.files.Source]] = [
        lambda: str(path), lambda: data, lambda: bytearray(data), lambda: memoryview(data), lambda: io.BytesIO(data)
    ]  # fmt: skip
    for give in givers:
        assert np.array_equal(condic.decode(give(), bundle_path), expected)
        assert condic.open(give()).size == (50, 40)
        assert np.array_equal(condic.open_codec(bundle_path).decode(give()).image, expected)


def test_image_files_are_taken_by_path_as_bytes_and_open(path: Path, bundle_path: Path) -> None:
    source = path.with_suffix(".png")
    expected = condic.encode(source, 9, bundle_path)
    assert condic.open(expected).metadata == METADATA
    with source.open("rb") as file, Image.open(source) as image:
        for given in (str(source), source.read_bytes(), memoryview(source.read_bytes()), file, image):
            assert condic.encode(given, 9, bundle_path) == expected
        stripped = condic.encode(image, 9, bundle_path, strip=True)
    assert stripped == condic.encode(np.asarray(Image.open(source)), 9, bundle_path)
    assert not condic.open(stripped).metadata


def test_a_pipe_is_read_to_its_end(path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._rest = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readall(self) -> bytes:
            return self._rest.read()

        def read(self, size: int = -1) -> bytes:
            return self._rest.read(size)

    assert condic.open(Pipe(path.read_bytes())).size == (50, 40)
    assert condic.Codec is Codec


def test_limits_of_size_are_arguments_of_encode(bundle_path: Path, drawing: Draw) -> None:
    image = drawing(60, 70)
    most = len(condic.encode(image, 20, bundle_path))
    assert condic.encode(image, model=bundle_path, max_bytes=most) == condic.encode(image, 20, bundle_path)
    assert len(condic.encode(image, model=bundle_path, bpp=most * 8 / 4200)) <= most
    assert condic.open(condic.encode(image, model=bundle_path, psnr=5)).quality == 0
    with pytest.raises(condic.InputError, match="exclude each other"):
        condic.encode(image, 3, bundle_path, psnr=5)
    with pytest.raises(condic.InputError, match="70x60 is over the limit of"):
        condic.encode(image, 3, bundle_path, limits=condic.Limits(pixels=4199))


def test_errors_name_the_file(tmp_path: Path, bundle_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    data = condic.encode(drawing(20, 30), 3, bundle_path)
    good, bad = tmp_path / "good.cdic", tmp_path / "bad.cdic"
    good.write_bytes(data)
    bad.write_bytes(data[:-1])
    codec = condic.open_codec(bundle_path)
    for decode in (codec.decode, codec.preview, lambda path: list(codec.decode_many([good, path]))):
        with pytest.raises(condic.StreamError, match=r"bad\.cdic: truncated"):
            decode(bad)
    with pytest.raises(condic.StreamError, match=r"bad\.cdic: truncated"):
        next(condic.decode_many([bad], bundle_path))
    with pytest.raises(condic.BundleError, match=r"good\.cdic: the file was made with model"):
        condic.decode(good, "dcic-sgp-s")
    for region in (5, np.array(5)):
        with pytest.raises(condic.InputError, match=r"good\.cdic: region"):
            condic.decode(good, bundle_path, region=region)  # type: ignore[arg-type]
    with pytest.raises(condic.StreamError, match=r"^truncated"):
        codec.decode(data[:-1])


def test_files_that_cannot_be_read_are_input_errors(bundle_path: Path, tmp_path: Path) -> None:
    closed, text = io.BytesIO(b"CDIC"), tmp_path / "text"
    closed.close()
    text.write_bytes(b"\xff\xfe")
    with pytest.raises(condic.InputError, match="closed file"):
        condic.decode(closed)
    with text.open(encoding="utf-8") as file, pytest.raises(condic.InputError, match="gives text, not bytes; open it"):
        condic.decode(file)  # type: ignore[arg-type]
    with pytest.raises(condic.InputError, match="closed file"):
        condic.encode(closed, 3, bundle_path)
    with text.open("wb") as file, pytest.raises(condic.InputError, match="text: is not open for reading"):
        condic.decode(file)
    for empty in (b"", io.BytesIO()):
        with pytest.raises(condic.InputError, match="the file is empty"):
            condic.encode(empty, 3, bundle_path)


def test_limits_are_numbers() -> None:
    assert Limits(side=np.int64(5)).side == 5
    for wrong in (0, -5, "5", 2.5, None, True):
        with pytest.raises(condic.InputError, match=f"limit of side {wrong!r}: give an integer from 1"):
            Limits(side=wrong)  # type: ignore[arg-type]


def test_a_model_has_a_name() -> None:
    with pytest.raises(condic.BundleError, match=r"^'': no such bundle"):
        condic.open_codec("")


def test_an_open_file_is_read_from_where_it_stands(bundle_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    picture, data = io.BytesIO(), drawing(20, 30)
    Image.fromarray(data).save(picture, "PNG")
    expected = condic.encode(data, 3, bundle_path)
    file = io.BytesIO(b"junk" + picture.getvalue())
    file.seek(4)
    assert condic.encode(file, 3, bundle_path) == expected
    file = io.BytesIO(b"junk" + expected)
    file.seek(4)
    assert condic.decode(file, bundle_path).shape == (20, 30, 3)
    spread = memoryview(b"".join(bytes([x, 0]) for x in expected))[::2]
    assert condic.decode(spread, bundle_path).shape == (20, 30, 3)
    spread = memoryview(b"".join(bytes([x, 0]) for x in picture.getvalue()))[::2]
    assert condic.encode(spread, 3, bundle_path) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quality", True),
        ("max_bytes", "9"),
        ("max_bytes", True),
        ("bpp", "much"),
        ("psnr", float("nan")),
        ("bpp", -math.inf),
    ],
)
def test_numbers_that_are_none_are_refused(
    bundle_path: Path, drawing: Callable[..., np.ndarray], name: str, value: object
) -> None:
    with pytest.raises(condic.InputError, match=str(value)):
        condic.encode(drawing(20, 30), model=bundle_path, **{name: value})  # type: ignore[arg-type]


def test_a_number_that_no_float_holds_is_refused(bundle_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    with pytest.raises(condic.InputError, match="not a finite number"):
        condic.encode(drawing(20, 30), model=bundle_path, psnr=10**400)


@pytest.mark.parametrize("threads", ["2", 2.5, None, -1, 257])
def test_threads_that_are_no_number_of_them_are_refused(bundle_path: Path, threads: object) -> None:
    with pytest.raises(condic.InputError, match="give an integer from 0 to 256"):
        condic.open_codec(bundle_path, "ort", threads)  # type: ignore[arg-type]


def test_a_backend_that_is_no_name_is_refused(bundle_path: Path) -> None:
    with pytest.raises(condic.InputError, match="backend is a list"):
        condic.open_codec(bundle_path, ["ort"])  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["bytes", "buffer", "file", "path"])
def test_an_opened_file_can_be_sent_to_another_process_and_changes_no_more(
    path: Path, bundle_path: Path, given: str
) -> None:
    data = bytearray(path.read_bytes())
    sources = {"bytes": bytes(data), "buffer": data, "file": io.BytesIO(data), "path": path}
    opened = condic.open(sources[given], bundle_path)
    expected = opened.decode().image
    data[:] = bytes(len(data))
    again = pickle.loads(pickle.dumps(opened))
    assert np.array_equal(opened.decode().image, expected)
    assert np.array_equal(again.decode().image, expected)


def test_a_limit_beyond_all_numbers_is_none(bundle_path: Path, drawing: Callable[..., np.ndarray]) -> None:
    assert condic.open(condic.encode(drawing(20, 30), model=bundle_path, bpp=1e308)).quality == 63


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "^the file is empty"), (b"GIF89a" * 9, "^not a condic file"),
        ("none.cdic", "none.cdic: No such"),
        (3, "a int is no file"), (io.StringIO("text"), "text, not bytes"), (None, "a NoneType is no file"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused(source: object, message: str) -> None:
    for function in (condic.open, condic.decode):
        with pytest.raises(condic.CondicError, match=message):
            function(source)  # type: ignore[operator]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(condic.InputError, match="is a folder"):
        condic.open(tmp_path)


def test_threads_that_open_at_once_get_one_codec(bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    together = threading.Barrier(8)

    def work(_: int) -> Codec:
        together.wait()
        return condic.open_codec(bundle_path, threads=2)

    with ThreadPoolExecutor(8) as pool:
        assert len({id(codec) for codec in pool.map(work, range(8))}) == 1


def test_eight_threads_and_200_images_give_what_one_gives(bundle_path: Path, drawing: Draw) -> None:
    pytest.importorskip("onnxruntime")
    images = [drawing(20 + k % 90, 150 - k % 77, 1 + k % 4) for k in range(200)]
    alone = condic.open_codec(bundle_path, threads=1)
    files = [alone.encode(image, k % 64) for k, image in enumerate(images)]
    pictures = [alone.decode(data).image for data in files]
    shared = Codec(alone.bundle)  # its graphs load while all threads ask for them
    together = threading.Barrier(8)

    def work(first: int) -> list[tuple[bytes, np.ndarray]]:
        together.wait()
        results = []
        for k in range(first, 200, 8):
            data = shared.encode(images[k], k % 64)
            results.append((data, shared.decode(files[k]).image))
        return results

    with ThreadPoolExecutor(8) as pool:
        for first, results in enumerate(pool.map(work, range(8))):
            for k, (data, picture) in zip(range(first, 200, 8), results, strict=True):
                assert data == files[k]
                assert np.array_equal(picture, pictures[k])


def test_limits_hold_for_metadata_and_later(
    codec: Codec, bundle_path: Path, drawing: Callable[..., np.ndarray]
) -> None:
    picture = replace(as_picture(drawing(20, 60)), metadata=Metadata(xmp=b"x" * 500))
    data = codec.encode(picture, 10)
    with pytest.raises(LimitError, match="metadata"):
        condic.open(data, str(bundle_path), limits=Limits(metadata=400))
    coded = condic.open(data, str(bundle_path))
    coded._limits = Limits(side=30)
    for read in (coded.decode, coded.preview):
        with pytest.raises(LimitError):
            read()
