"""The search for a peer's file of as many bytes."""

from __future__ import annotations

import numpy as np
import pytest

from condic.benchmarks.pairs import highest_within

PIXELS = np.zeros((4, 4, 3), np.uint8)


class Growing:
    """A codec whose files have ten bytes a level."""

    def __init__(self, name: str = "jpeg") -> None:
        self.name = name

    def encode(self, image: np.ndarray, level: int) -> bytes:
        return bytes(10 * level)


@pytest.mark.parametrize(("limit", "level"), [(10, 1), (19, 1), (20, 2), (505, 50), (989, 98), (990, 99), (10**6, 99)])
def test_the_highest_level_that_fits_is_found(limit: int, level: int) -> None:
    assert highest_within(Growing(), PIXELS, limit) == (level, bytes(10 * level))  # type: ignore[arg-type]


def test_a_limit_below_the_smallest_file_gives_that_one() -> None:
    assert highest_within(Growing(), PIXELS, 9) == (1, bytes(10))  # type: ignore[arg-type]
    assert highest_within(Growing("webp"), PIXELS, 9) == (0, b"")  # type: ignore[arg-type]
