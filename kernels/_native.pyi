from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from condic.kernels.coder import Buffer

class Tables:
    def __init__(self, cdf: NDArray[np.uint16], radius: NDArray[np.int32]) -> None: ...

class Decoder:
    def __init__(self, tables: Tables, payload: Buffer) -> None: ...
    def decode(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]: ...
    def finish(self) -> None: ...

def encode(tables: Tables, chunks: Sequence[tuple[NDArray[np.int16], NDArray[np.uint8]]]) -> bytes: ...
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
) -> tuple[NDArray[np.int16], NDArray[np.uint8], int]: ...
def gather_indexes(
    params: NDArray[np.float32], boxes: NDArray[np.int32], first_coded: int, scales: int
) -> NDArray[np.uint8]: ...
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
) -> int: ...
def crc32c(data: Buffer, initial: int = 0) -> int: ...
