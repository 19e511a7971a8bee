"""The entropy-parameter step, between the graph that predicts a chunk of a latent and the coder that codes it.

A latent has shape [C, H, W]. Its chunk is given as `boxes`, int32 [n, 8]. A row (c0, c1, r0, r1, rstep, q0, q1, qstep)
stands for channels c0..c1-1, rows r0, r0 + rstep, .. below r1 and columns q0, q0 + qstep, .. below q1.
The chunk's N elements are ordered box by box, then by channel, row and column. No element may be in two boxes.

A chunk's distribution is a pair of vectors in the order of its elements: `mean`, int16 [N], in units of 1/16 (mu16),
and `scale`, uint8 [N], the index of a scale. Elements with an index below `first_coded` are not coded; they are their
mean. Encoding and decoding both store, in place and for the chunk's elements only, the decoded latent in `latents`,
int32 [C, H, W]: 16 * q + mu16. They return a checksum of it, which is equal on both sides as long as nothing went
wrong: the sum modulo 2**32, over the elements i of the chunk, of fmix32(i * 0x9E3779B1 ^ latent), fmix32 being
MurmurHash3's finaliser.

All arrays are contiguous. ValueError is raised for shapes and lengths that do not fit, boxes that leave the latent or
hold more elements than it has, and parameters out of range; TypeError for another dtype, or a strided or
unaligned array.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from condic.kernels import _native


class StridedBox(NamedTuple):
    """A row of `boxes`."""

    first_channel: int
    channel_end: int
    first_row: int
    row_end: int
    row_step: int
    first_column: int
    column_end: int
    column_step: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its channels, rows and columns."""
        c0, c1, r0, r1, rstep, q0, q1, qstep = self
        return c1 - c0, len(range(r0, r1, rstep)), len(range(q0, q1, qstep))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Its elements, as an array [C, H, W] is indexed."""
        c0, c1, r0, r1, rstep, q0, q1, qstep = self
        return slice(c0, c1), slice(r0, r1, rstep), slice(q0, q1, qstep)


def store_distribution(
    params: NDArray[np.float32],
    origin: tuple[int, int],
    shape: tuple[int, int, int],
    boxes: NDArray[np.int32],
    scales: int,
    mean: NDArray[np.int16],
    scale: NDArray[np.uint8],
) -> None:
    """Store what a graph predicts for the elements of a chunk that lie in a tile; other elements stay as they are.

    Args:
        params: float32 [2, C, h, w], which holds integers: means (clamped to int16) and indexes of scales (clamped to
            0..scales-1) over the tile; a NaN is taken as the lower limit.
        origin: row and column of the tile's first element in the latent.
        shape: C, H, W of the latent.
        scales: number of scales, 1 to 256.
        boxes, mean, scale: see above.
    """
    _native.store_distribution(params, *origin, shape, boxes, scales, mean, scale)


def quantise_chunk(
    y: NDArray[np.float32],
    mean: NDArray[np.int16],
    scale: NDArray[np.uint8],
    boxes: NDArray[np.int32],
    first_coded: int,
    latents: NDArray[np.int32],
) -> tuple[NDArray[np.int16], NDArray[np.uint8], int]:
    """Quantise a chunk of `y` (float32 [C, H, W]) for encoding and store its decoded values in `latents`.

    q is floor(y - mu16 / 16 + 1/2), clamped to +-32767; 0 where y is NaN, and where the element is not coded.

    Returns:
        q (int16) and scale index (uint8) of the coded elements, in order, ready for the coder; and the checksum.
    """
    return _native.quantise_chunk(y, mean, scale, boxes, first_coded, latents)


def coded_indexes(scale: NDArray[np.uint8], first_coded: int) -> NDArray[np.uint8]:
    """Scale indexes (uint8) of a chunk's coded elements, in order: what the decoder needs to decode the chunk."""
    return _native.coded_indexes(scale, first_coded)


def scatter_symbols(
    symbols: NDArray[np.int16],
    mean: NDArray[np.int16],
    scale: NDArray[np.uint8],
    boxes: NDArray[np.int32],
    first_coded: int,
    latents: NDArray[np.int32],
) -> int:
    """Store a chunk's decoded values in `latents`; the inverse of `quantise_chunk`.

    Args:
        symbols: int16, q of the coded elements, in order; as many as `coded_indexes` returns.
        mean, scale, boxes, first_coded, latents: see above.

    Returns:
        The checksum.

    Raises:
        ValueError: also if the number of symbols does not fit the chunk; `latents` is then undefined.
    """
    return _native.scatter_symbols(symbols, mean, scale, boxes, first_coded, latents)


def context_inputs(
    latents: NDArray[np.int32], rows: tuple[int, int], columns: tuple[int, int], shift: int, limit: int
) -> NDArray[np.float32]:
    """What contexts read of a part of a latent: rows and columns [begin, end).

    Args:
        latents: int32 [C, H, W].
        shift, limit: the result is the latent divided by 2**shift (0 to 20), rounded half up and clipped to
            -limit..limit (0 to 2**24).

    Returns:
        float32 [C, h, w].
    """
    context = np.empty((len(latents), rows[1] - rows[0], columns[1] - columns[0]), np.float32)
    _native.context_inputs(latents, rows[0], columns[0], shift, limit, context)
    return context
