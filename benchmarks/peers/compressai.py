"""CompressAI's models with random weights and its own entropy coder: for speed, which the weights hardly change.

CompressAI pins its libraries, so it usually lives in an environment of its own; nothing here needs more of condic than
a plain installation has.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from typing import Any

import numpy as np

from condic.benchmarks.peers import MissingError
from condic.errors import InputError
from condic.runtime.arrays import Pixels

_ALIGNMENT = 64
_HEADER = struct.Struct("<IIIIII")


def open_codec(name: str, threads: int) -> CompressAi:
    """A model of CompressAI on so many threads (0: all). Raises MissingError where it is not installed."""
    try:
        import compressai
        import torch
    except ImportError as error:
        raise MissingError(
            f"CompressAI is not installed here ({error}); docs/benchmarks.md makes an environment that has it"
        ) from error
    torch.set_num_threads(threads or os.cpu_count() or 1)
    return CompressAi(name, f"CompressAI {compressai.__version__}, PyTorch {torch.__version__}, random weights")


class CompressAi:
    """One of CompressAI's architectures; a level is its quality 1..8, which chooses the number of channels."""

    levels: tuple[int, ...] = ()
    """None: random weights have no rate-distortion curve."""
    usual_level = 5
    """0.6 to 0.7 bits per pixel on Kodak, as published."""

    def __init__(self, name: str, settings: str) -> None:
        self.name, self.settings = name, settings

    def encode(self, image: Pixels, level: int) -> bytes:
        """A file: padded as the networks need it, coded with CompressAI's rANS, the strings one after the other."""
        import torch

        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % _ALIGNMENT), (0, -width % _ALIGNMENT), (0, 0)), mode="edge")
        with torch.inference_mode():
            x = torch.from_numpy(padded).permute(2, 0, 1)[None].float().div_(255)
            coded = _network(self.name, level).compress(x)
        y: bytes
        z: bytes
        (y,), (z,) = coded["strings"]
        return _HEADER.pack(level, height, width, *coded["shape"], len(y)) + y + z

    def decode(self, data: bytes) -> Pixels:
        """uint8 [H, W, 3]. Raises InputError if the file is too short to be one."""
        import torch

        if len(data) < _HEADER.size:
            raise InputError(f"{len(data)} bytes are no file of {self.name}")
        level, height, width, rows, columns, size = _HEADER.unpack_from(data)
        y, z = data[_HEADER.size : _HEADER.size + size], data[_HEADER.size + size :]
        with torch.inference_mode():
            decoded = _network(self.name, level).decompress([[y], [z]], (rows, columns))["x_hat"]
            pixels = decoded[0, :, :height, :width].clamp(0, 1).mul(255).round().to(torch.uint8)
            result: Pixels = pixels.permute(1, 2, 0).contiguous().numpy()
        return result


@lru_cache(maxsize=1)
def _network(name: str, level: int) -> Any:
    import torch
    from compressai.zoo import image_models

    torch.manual_seed(0)
    network = image_models[name](quality=level, metric="mse", pretrained=False).eval()
    network.update()
    return network
