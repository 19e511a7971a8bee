"""Other image codecs, to run beside condic: one interface, one file per library."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from condic.errors import InputError
from condic.runtime.arrays import Pixels


class ImageCodec(Protocol):
    """A codec under test, condic's own included."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def settings(self) -> str:
        """What it runs with: versions, options."""
        ...

    @property
    def levels(self) -> Sequence[int]:
        """The levels of its rate-distortion curve, from small files to large ones; none where weights are random."""
        ...

    @property
    def usual_level(self) -> int:
        """The level at which its speed is measured."""
        ...

    def encode(self, image: Pixels, level: int) -> bytes:
        """uint8 [H, W, 3] to a whole file."""
        ...

    def decode(self, data: bytes) -> Pixels:
        """A file to uint8 [H, W, 3]."""
        ...


class MissingError(InputError):
    """Something whose library is not installed here; the message says how to get it."""


COMPRESSAI = ("bmshj2018-hyperprior", "mbt2018-mean", "cheng2020-anchor")
_MODULES = {name: name for name in ("jpeg", "webp", "avif", "jxl")} | dict.fromkeys(COMPRESSAI, "compressai")
_LEVELS = dict.fromkeys(COMPRESSAI, range(1, 9)) | {"cheng2020-anchor": range(1, 7)}
"""What CompressAI has; the others have Pillow's qualities."""
_DIGITS = 9
"""Fewer than these are a number that Python reads."""
PEERS = tuple(_MODULES)
"""All peers by name."""


def split_level(peer: str) -> tuple[str, int | None]:
    """Name and level of a peer as people write it, `jpeg` or `jpeg:90`. Raises InputError for no peer or no number."""
    name, colon, level = peer.partition(":")
    if name not in PEERS:
        raise InputError(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
    levels = _LEVELS.get(name, range(101))
    if colon and not (level.isdecimal() and len(level) < _DIGITS and int(level) in levels):
        raise InputError(f"peer {peer!r}: a level is a number from {levels[0]} to {levels[-1]}, as in {name}:3")
    return name, int(level) if colon else None


def open_peer(name: str, threads: int = 0) -> ImageCodec:
    """A peer by name on so many threads (0: as it likes). Raises InputError if there is none of this name.

    Raises MissingError where its library is not installed.
    """
    name, level = split_level(name)
    if level is not None:
        raise InputError(f"{name}:{level}: this runs at levels of its own; give {name}")
    peer: ImageCodec = import_module(f"condic.benchmarks.peers.{_MODULES[name]}").open_codec(name, threads)
    return peer


def open_trained(name: str) -> ImageCodec:
    """A peer with rates and pictures of its own. Raises as above, and InputError for one with random weights."""
    peer = open_peer(name)
    if not peer.levels:
        raise InputError(
            f"{name} runs with random weights, which have no rate and make no picture; condic-bench throughput times it"
        )
    return peer
