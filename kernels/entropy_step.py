"""The entropy-parameter step, between the graph that predicts a chunk of a latent and the coder that codes it.

A latent has shape [C, H, W]. Its chunk is given as `boxes`, int32 [n, 8]. A row (c0, c1, r0, r1, rstep, q0, q1, qstep)
stands for channels c0..c1-1, rows r0, r0 + rstep, .. below r1 and columns q0, q0 + qstep, .. below q1.
The chunk's elements are ordered box by box, then by channel, row and column. No element may be in two boxes.

The graph's prediction is `params`, float32 [2, C, H, W], which holds integers: the mean in units of 1/16 (clamped to
int16) and the index of a scale (clamped to 0..scales-1); a NaN is taken as the lower limit. Elements with a scale index
below `first_coded` are not coded; they are their mean. Encoding and decoding both store, in place and for the chunk's
elements only,

 - in `latents`, int32 [C, H, W]: the decoded latent in units of 1/16, 16 * q + mu16;
 - in `context`, float32 [C, H, W]: the same divided by 2**context_shift, rounded half up and clipped to
   -context_limit..context_limit, which is what later graphs read;

and return a checksum of the former, which is equal on both sides as long as nothing went wrong: the sum modulo 2**32,
over the elements i of the chunk, of fmix32(i * 0x9E3779B1 ^ latent), fmix32 being MurmurHash3's finaliser.

All arrays are contiguous. ValueError is raised for shapes that differ, boxes that leave the latent or hold more
elements than it has, and parameters out of range; TypeError for another dtype or a strided array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from condic.kernels import _native


def quantise_chunk(
    y: NDArray[np.float32],
    params: NDArray[np.float32],
    boxes: NDArray[np.int32],
    first_coded: int,
    latents: NDArray[np.int32],
    context: NDArray[np.float32],
    context_shift: int,
    context_limit: int,
    scales: int,
) -> tuple[NDArray[np.int16], NDArray[np.uint8], int]:
    """Quantise a chunk of `y` for encoding and store its decoded values in `latents` and `context`.

    q is floor(y - mu16 / 16 + 1/2), clamped to +-32767; 0 where y is NaN, and where the element is not coded.

    Args:
        y: float32 [C, H, W], the latent to code.
        params, boxes, first_coded, latents, context: see above.
        context_shift: 0 to 20.
        context_limit: 0 to 2**24.
        scales: number of scales, 1 to 256.

    Returns:
        q (int16) and scale index (uint8) of the coded elements, in order, ready for the coder; and the checksum.
    """
    return _native.quantise_chunk(y, params, boxes, first_coded, latents, context, context_shift, context_limit, scales)


def gather_indexes(
    params: NDArray[np.float32], boxes: NDArray[np.int32], first_coded: int, scales: int
) -> NDArray[np.uint8]:
    """Scale indexes (uint8) of a chunk's coded elements, in order: what the decoder needs to decode the chunk."""
    return _native.gather_indexes(params, boxes, first_coded, scales)


def scatter_symbols(
    symbols: NDArray[np.int16],
    params: NDArray[np.float32],
    boxes: NDArray[np.int32],
    first_coded: int,
    latents: NDArray[np.int32],
    context: NDArray[np.float32],
    context_shift: int,
    context_limit: int,
    scales: int,
) -> int:
    """Store a chunk's decoded values in `latents` and `context`; the inverse of `quantise_chunk`.

    Args:
        symbols: int16, q of the coded elements, in order; as many as `gather_indexes` returns.
        params, boxes, first_coded, latents, context, context_shift, context_limit, scales: as in `quantise_chunk`.

    Returns:
        The checksum.

    Raises:
        ValueError: also if the number of symbols does not fit the chunk; `latents` and `context` are then undefined.
    """
    return _native.scatter_symbols(
        symbols, params, boxes, first_coded, latents, context, context_shift, context_limit, scales
    )
