from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from condic.kernels.coder import Buffer

GROUP_BYTES: int

class Tables:
    def __init__(self, cdf: NDArray[np.uint16], radius: NDArray[np.int32]) -> None: ...
    def arrays(self) -> tuple[bytes, ...]: ...

class Decoder:
    def __init__(self, tables: Tables, payload: Buffer) -> None: ...
    def decode(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]: ...
    def finish(self) -> None: ...

def encode(tables: Tables, chunks: Sequence[tuple[NDArray[np.int16], NDArray[np.uint8]]]) -> bytes: ...
def store_distribution(
    params: NDArray[np.float32],
    row: int,
    column: int,
    shape: tuple[int, int, int],
    boxes: NDArray[np.int32],
    scales: int,
    mean: NDArray[np.int16],
    scale: NDArray[np.uint8],
) -> None: ...
def quantise_chunk(
    y: NDArray[np.float32],
    mean: NDArray[np.int16],
    scale: NDArray[np.uint8],
    boxes: NDArray[np.int32],
    first_coded: int,
    latents: NDArray[np.int32],
) -> tuple[NDArray[np.int16], NDArray[np.uint8], int]: ...
def coded_indexes(scale: NDArray[np.uint8], first_coded: int) -> NDArray[np.uint8]: ...
def scatter_symbols(
    symbols: NDArray[np.int16],
    mean: NDArray[np.int16],
    scale: NDArray[np.uint8],
    boxes: NDArray[np.int32],
    first_coded: int,
    latents: NDArray[np.int32],
) -> int: ...
def context_inputs(
    latents: NDArray[np.int32], row: int, column: int, shift: int, limit: int, context: NDArray[np.float32]
) -> None: ...
def crc32c(data: Buffer, initial: int = 0) -> int: ...
