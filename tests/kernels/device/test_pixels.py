from __future__ import annotations

import numpy as np
import pytest
from cuda_emulator import DeviceMemory, Emulator, LaunchError, view
from hypothesis import given
from hypothesis import strategies as st

from condic.kernels.device import pixels_to_tensor, tensor_to_pixels
from condic.runtime.bitstream import Flags
from condic.runtime.canvas import Canvas, Rectangle
from condic.runtime.pixels import PixelSource
from condic.runtime.tiles import Region

ALIGNMENT = 16


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]))
def test_the_tensor_of_any_image_is_that_of_the_host(
    emulator: Emulator, height: int, width: int, channels: int
) -> None:
    pixels = np.random.default_rng([height, width]).integers(0, 256, (height, width, channels), np.uint8)
    region = Region(0, -(-height // ALIGNMENT), 0, -(-width // ALIGNMENT))
    expected = PixelSource(np.broadcast_to(pixels, (height, width, 3)), ALIGNMENT).tensor(region)

    memory = DeviceMemory()
    tensor = memory.allocate(expected.nbytes)
    source = memory.put(pixels, alignment=1)
    emulator.launch(pixels_to_tensor(source, pixels.shape, tensor, expected.shape[2:]))
    np.testing.assert_array_equal(view(tensor, expected.shape, np.float32), expected)
    memory.free_all()


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]))
def test_the_pixels_of_any_image_are_those_of_the_host(
    emulator: Emulator, height: int, width: int, channels: int
) -> None:
    rows, columns = (side + -side % ALIGNMENT for side in (height, width))
    tensor = np.random.default_rng([height, width]).uniform(-0.2, 1.2, (1, 3, rows, columns)).astype(np.float32)
    tensor[..., ::2] = (np.round(tensor[..., ::2] * 255) + np.float32(0.5)) / np.float32(255)  # where rounding turns
    canvas = Canvas(Rectangle(0, 0, width, height), Flags.GREY if channels == 1 else Flags.NONE, ALIGNMENT)
    canvas.draw(tensor, Region(0, rows // ALIGNMENT, 0, columns // ALIGNMENT))
    expected = canvas.image().reshape(height, width, channels)

    memory = DeviceMemory()
    pixels = memory.allocate(expected.nbytes, alignment=1)
    emulator.launch(tensor_to_pixels(memory.put(tensor), (rows, columns), pixels, expected.shape))
    np.testing.assert_array_equal(view(pixels, expected.shape, np.uint8), expected)
    memory.free_all()


def test_values_that_are_no_level_become_the_nearest(emulator: Emulator, memory: DeviceMemory) -> None:
    tensor = np.zeros((3, 1, 4), np.float32)
    tensor[:] = [np.nan, -np.inf, np.inf, 1e30]
    pixels = memory.allocate(12)
    emulator.launch(tensor_to_pixels(memory.put(tensor), (1, 4), pixels, (1, 4, 3)))
    assert view(pixels, (4, 3), np.uint8).tolist() == [[0] * 3, [0] * 3, [255] * 3, [255] * 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 2, 6), (2, 15, 15)])
def test_a_tensor_that_is_not_finite_is_told(
    emulator: Emulator, memory: DeviceMemory, place: tuple[int, int, int], value: float
) -> None:
    tensor, pixels, flag = np.zeros((3, 16, 16), np.float32), memory.allocate(16 * 16 * 3), memory.zeros(4)
    tensor[place] = value
    emulator.launch(tensor_to_pixels(memory.put(tensor), (16, 16), pixels, (16, 16, 3), not_finite=flag))
    assert view(flag, 1, np.uint32)[0] == (not np.isfinite(value))


def test_memory_that_is_too_small_is_an_error_of_the_launch(emulator: Emulator, memory: DeviceMemory) -> None:
    tensor, pixels = memory.allocate(3 * 16 * 16 * 4), memory.allocate(15 * 16 * 3)
    with pytest.raises(LaunchError, match=r"pixels_to_tensor: access to 0x[0-9a-f]+, which is not the launch's memory"):
        emulator.launch(pixels_to_tensor(pixels, (16, 16, 3), tensor, (16, 16)))


@pytest.mark.parametrize(
    ("image", "size", "tensor"),
    [((4, 4, 2), (4, 4), 256), ((4, 4, 3), (4, 6), 256), ((4, 4, 3), (4, 4), 264), ((0, 4, 3), (4, 4), 256),
     ((4, 4, 3), (2**20, 2**12), 256), ((4, 4, 4), (4, 4), 256)],
)  # fmt: skip
def test_what_no_launch_can_do_is_refused(image: tuple[int, int, int], size: tuple[int, int], tensor: int) -> None:
    with pytest.raises(ValueError, match=r"channels|columns|sizes"):
        pixels_to_tensor(16, image, tensor, size)
    with pytest.raises(ValueError, match=r"channels|columns|sizes"):
        tensor_to_pixels(tensor, size, 16, image)
