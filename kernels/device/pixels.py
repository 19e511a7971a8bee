"""Between pixels and the tensors that graphs read and write: kernels/cuda/pixel_kernels.h."""

from __future__ import annotations

import numpy as np

from condic.kernels.device.launch import THREADS, Address, Launch, check_positive, fill, launch, struct

_QUAD = 4

_TASK = struct(
    ("pixels", np.uint64), ("tensor", np.uint64), ("not_finite", np.uint64), ("height", np.int32), ("width", np.int32),
    ("rows", np.int32), ("columns", np.int32), ("channels", np.int32),
)  # fmt: skip


def pixels_to_tensor(pixels: Address, image: tuple[int, int, int], tensor: Address, size: tuple[int, int]) -> Launch:
    """Pixels to what graphs read: divided by 255, padded by repeating the last column and row (as `PixelSource` does).

    Args:
        pixels: uint8 [H, W, channels].
        image: H, W, and channels: 3, or 1 for grey, which becomes three equal planes.
        tensor: float32 [3, rows, columns], aligned to 16 bytes.
        size: rows and columns; columns a multiple of 4.

    Raises:
        ValueError: a size is out of range.
    """
    return _launch("pixels_to_tensor", pixels, image, tensor, size)


def tensor_to_pixels(
    tensor: Address, size: tuple[int, int], pixels: Address, image: tuple[int, int, int], *, not_finite: Address = 0
) -> Launch:  # fmt: skip
    """What a graph gives, float32 [3, rows, columns] around 0..1, to pixels: rounded, clipped, and cut to the image.

    Args are as above. With one channel, a pixel is the rounded mean of the three colours. NaN becomes 0. `not_finite`
    is a uint32 that becomes 1 if the tensor has an infinity or NaN in the image's rows.

    Raises:
        ValueError: a size is out of range.
    """
    return _launch("tensor_to_pixels", pixels, image, tensor, size, not_finite)


def _launch(
    kernel: str, pixels: Address, image: tuple[int, int, int], tensor: Address, size: tuple[int, int],
    not_finite: Address = 0,
) -> Launch:  # fmt: skip
    (height, width, channels), (rows, columns) = image, size
    check_positive("image", image)
    check_positive("tensor", (3, *size))
    if channels not in (1, 3):
        raise ValueError(f"an image of {channels} channels; 1 or 3 can be converted")
    if columns % _QUAD or tensor % 16:
        raise ValueError(f"a tensor of {columns} columns at {tensor:#x}: multiples of {_QUAD} and 16 are needed")
    task = fill(
        _TASK, pixels=pixels, tensor=tensor, not_finite=not_finite, height=height, width=width, rows=rows,
        columns=columns, channels=channels,
    )  # fmt: skip
    return launch(kernel, -(-rows * columns // (_QUAD * THREADS)), task)
