"""Codecs that Pillow and its plugins have, to run beside condic."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from condic.errors import InputError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Peer:
    """A Pillow format. `levels` are its values of `quality`, `options` what else `save` is given."""

    name: str
    format: str
    levels: tuple[int, ...]
    options: Mapping[str, object]
    plugin: str | None = None

    @property
    def settings(self) -> str:
        """What it ran with, for reports."""
        return ", ".join(f"{name} {value}" for name, value in self.options.items()) or "defaults"

    def encode(self, image: Pixels, level: int) -> bytes:
        """A whole file."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, self.format, quality=level, **self.options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """uint8 [H, W, 3]."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("jpeg", "JPEG", (5, 10, 20, 30, 40, 55, 70, 85), {"subsampling": "4:2:0", "optimize": True}),
        Peer("webp", "WEBP", (1, 5, 15, 30, 45, 60, 75, 88), {"method": 6}),
        Peer("avif", "AVIF", (15, 25, 35, 45, 55, 65, 75, 85), {"subsampling": "4:4:4", "speed": 6}),
        Peer("jxl", "JXL", (5, 15, 25, 40, 55, 70, 80, 88), {"effort": 7}, "pillow_jxl"),
    )
}
_HINTS = {"avif": "a Pillow of 11.3 or newer has it", "jxl": "pip install pillow-jxl-plugin"}


def open_peer(name: str) -> Peer:
    """A peer by name, tried on a small image. Raises InputError if there is none or this Pillow lacks it."""
    if name not in PEERS:
        raise InputError(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
    peer = PEERS[name]
    try:
        if peer.plugin:
            importlib.import_module(peer.plugin)
        peer.encode(np.zeros((16, 16, 3), np.uint8), peer.levels[0])
    except (ImportError, KeyError, OSError, ValueError) as error:
        hint = _HINTS.get(name, "pip install --upgrade pillow")
        raise InputError(f"this Pillow cannot write {name} ({error}); {hint}") from error
    return peer
