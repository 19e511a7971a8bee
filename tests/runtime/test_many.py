"""Many images in order, the next one begun while the last one is finished."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import condic
from condic.errors import InputError, StreamError
from condic.runtime.codec import Codec
from condic.runtime.many import in_order

Draw = Callable[..., npt.NDArray[np.uint8]]


def test_results_come_in_order_whatever_takes_how_long() -> None:
    gates = [threading.Event() for _ in range(4)]

    def begin(k: int) -> Callable[[], int]:
        if k == 3:
            for gate in reversed(gates):
                gate.set()
        return lambda: gates[k].wait(10) and k * k  # type: ignore[return-value]

    assert list(in_order(begin, range(4), workers=4)) == [0, 1, 4, 9]


def test_an_item_begins_while_the_one_before_it_is_finished() -> None:
    begun = [threading.Event() for _ in range(3)]

    def begin(k: int) -> Callable[[], bool]:
        begun[k].set()
        return lambda: k == 2 or begun[k + 1].wait(10)

    assert list(in_order(begin, range(3), workers=1)) == [True] * 3


@pytest.mark.parametrize("workers", [1, 3])
def test_endless_items_are_taken_as_they_are_needed(workers: int) -> None:
    taken = itertools.count()
    results = in_order(lambda k: lambda: k, taken, workers)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert next(taken) == 10 + workers
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["begin", "finish"])
def test_an_error_comes_in_its_place_and_is_the_end(where: str) -> None:
    def begin(k: int) -> Callable[[], int]:
        def finish() -> int:
            if where == "finish" and k == 2:
                raise KeyError(k)
            return k

        if where == "begin" and k == 2:
            raise KeyError(k)
        return finish

    results = in_order(begin, range(5), workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == []


def test_latents_come_if_they_are_asked_for(codec: Codec, drawing: Draw) -> None:
    data = codec.encode(drawing(40, 50), 25)
    decoded = codec.decode(data)
    assert decoded.latents == next(codec.decode_many([data])).latents == codec.preview(data).latents == {}
    with pytest.raises(ValueError, match=r"without its latents; ask for them \(latents=True\)"):
        decoded.latents_sha256()
    assert list(codec.decode(data, latents=True).latents) == ["prior", "hyper", "main"]


def test_many_images_are_the_files_of_each(codec: Codec, drawing: Draw) -> None:
    images = [drawing(30 + k, 50, channels) for k, channels in enumerate((3, 4, 3, 2))]
    files = list(codec.encode_many(images, 25))
    assert files == [codec.encode(image, 25) for image in images]
    decoded = list(codec.decode_many(files, latents=True))
    for each, file in zip(decoded, files, strict=True):
        assert np.array_equal(each.image, codec.decode(file).image)
        assert each.latents_sha256() == codec.decode(file, latents=True).latents_sha256()


def test_a_damaged_file_among_many_is_found_in_its_place(codec: Codec, drawing: Draw) -> None:
    good = codec.encode(drawing(30, 40), 20)
    results = codec.decode_many([good, good[:-1], good])
    next(results)
    with pytest.raises(StreamError):
        next(results)


def test_the_functions_take_and_give_many(bundle_path: object, drawing: Draw) -> None:
    pytest.importorskip("onnxruntime")
    images = [drawing(20, 30), drawing(31, 22)]
    model = str(bundle_path)

    def given() -> Iterator[npt.NDArray[np.uint8]]:
        yield from images

    files = list(condic.encode_many(given(), 30, model))
    assert files == [condic.encode(image, 30, model) for image in images]
    assert [x.shape for x in condic.decode_many(iter(files), model)] == [(20, 30, 3), (31, 22, 3)]
    assert list(condic.decode_many([])) == []
    with pytest.raises(InputError):
        list(condic.encode_many(images, 64, model))


def test_an_error_in_taking_an_image_comes_in_its_place(bundle_path: object, drawing: Draw) -> None:
    pytest.importorskip("onnxruntime")
    good = drawing(20, 30)
    files = condic.encode_many([good, good, "missing.png", good], 30, str(bundle_path))
    assert [next(files), next(files)] == [condic.encode(good, 30, str(bundle_path))] * 2
    with pytest.raises(InputError, match=r"missing\.png"):
        next(files)


def test_images_may_come_in_one_array_that_is_filled_again(codec: Codec, drawing: Draw) -> None:
    images = [drawing(40, 50, 4) for _ in range(3)]
    for k, image in enumerate(images):
        image[..., 3] = 80 * k
    buffer = np.empty_like(images[0])

    def given() -> Iterator[npt.NDArray[np.uint8]]:
        for image in images:
            buffer[:] = image
            yield buffer

    assert list(codec.encode_many(given(), 25)) == [codec.encode(image, 25) for image in images]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_buffer_may_hold_the_next_file_when_it_is_taken(
    codec: Codec, bundle_path: Path, drawing: Draw, channels: int
) -> None:
    files = [codec.encode(np.roll(drawing(40, 50, channels), 7 * k, axis=1), 20) for k in range(4)]
    expected = [codec.decode(data).image for data in files]
    buffer = bytearray(max(map(len, files)))

    def taken() -> Iterator[memoryview]:
        for data in files:
            buffer[: len(data)] = data
            yield memoryview(buffer)[: len(data)]

    def resized() -> Iterator[bytearray]:
        for data in files:
            buffer[:] = data  # a BufferError while something holds it
            yield buffer

    for decoded in (
        condic.decode_many(taken(), bundle_path),
        (x.image for x in codec.decode_many(taken())),
        condic.decode_many(resized(), bundle_path),
        (x.image for x in codec.decode_many(resized())),
    ):
        for image, other in zip(decoded, expected, strict=True):
            assert np.array_equal(image, other)
