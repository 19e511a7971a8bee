"""Profiles as people name them: `1080p`, or smallest, usual and largest size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from condic.errors import InputError
from condic.runtime.bundle import Bundle
from condic.runtime.cuda.graph import size_of
from condic.runtime.engine_cache import PROFILES, Profile
from condic.runtime.known_answer import known_inputs
from condic.runtime.manifest import Size

_LARGEST_SIDE = 65535


def named_profiles(names: str) -> list[Profile]:
    """Profiles of a list such as "512,1080p". Raises InputError for a name that is unknown."""
    profiles = []
    for name in names.split(","):
        if name not in PROFILES:
            known = ", ".join(PROFILES)
            raise InputError(f"--profile {names}: there is no {name!r}; there are {known}, or give --shapes")
        profiles.append(PROFILES[name])
    return list(dict.fromkeys(profiles))


def profile_of_shapes(text: str) -> Profile:
    """The profile of "128x128,1080x1920,2160x3840": heights by widths. Raises InputError."""
    parts = text.split(",")
    if len(parts) != 3:
        raise InputError(f"--shapes {text}: needs smallest, usual and largest size, as 128x128,1080x1920,2160x3840")
    smallest, usual, largest = (_size(text, part) for part in parts)
    for side, low, middle, high in zip(("height", "width"), smallest, usual, largest, strict=True):
        if not low <= middle <= high:
            raise InputError(f"--shapes {text}: out of order, {side}s {low}, {middle} and {high} must not fall")
    return Profile(smallest, usual, largest)


def _size(text: str, part: str) -> Size:
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", part.strip())
    height, width = (int(side) for side in sides.groups()) if sides else (0, 0)
    if not (1 <= height <= _LARGEST_SIDE and 1 <= width <= _LARGEST_SIDE):
        raise InputError(f"--shapes {text}: {part} is no HEIGHTxWIDTH with sides from 1 to {_LARGEST_SIDE}")
    return height, width


def aligned(profile: Profile, alignment: int) -> Profile:
    """With sides rounded up to what images are padded to."""
    smallest, usual, largest = (
        (-(-height // alignment) * alignment, -(-width // alignment) * alignment)
        for height, width in (profile.smallest, profile.usual, profile.largest)
    )
    return Profile(smallest, usual, largest)


def check_profiles(bundle: Bundle, profiles: Sequence[Profile]) -> None:
    """Raises InputError for a profile that does not take the known answers' sizes: its engines would never be used."""
    for graph in bundle.manifest.graphs:
        if graph.precision != "exact":
            continue
        height, width = size = size_of(graph, known_inputs(bundle, graph))
        unit = bundle.manifest.alignment
        for profile in profiles:
            if not aligned(profile, unit).takes(size):
                raise InputError(
                    f"profile {profile} does not take {height}x{width}, the size of the known answers that every "
                    f"engine of {graph.role} has to give before it is used; give --shapes that begin with {unit}x{unit}"
                )
