"""Tensors that live at the same time lie apart; the others share."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from condic.runtime.cuda.arena import ALIGNMENT, lay_out

NAMES = "abcdefgh"


@given(
    uses=st.lists(st.lists(st.sampled_from(NAMES), max_size=4), max_size=12),
    sizes=st.fixed_dictionaries({name: st.integers(1, 5000) for name in NAMES}),
)
def test_tensors_that_live_together_never_overlap(uses: list[list[str]], sizes: dict[str, int]) -> None:
    layout = lay_out(uses, sizes)
    times = {x: [k for k, names in enumerate(uses) if x in names] for x in NAMES}
    alive = {name: (min(found), max(found)) for name, found in times.items() if found}
    assert set(layout.offsets) == set(alive)
    for a, b in itertools.combinations(alive, 2):
        together = alive[a][0] <= alive[b][1] and alive[b][0] <= alive[a][1]
        begin, end = layout.offsets[a], layout.offsets[a] + sizes[a]
        apart = end <= layout.offsets[b] or layout.offsets[b] + sizes[b] <= begin
        assert apart or not together
        assert begin % ALIGNMENT == 0
        assert end <= layout.size


def test_a_chain_takes_the_room_of_two_neighbours() -> None:
    layout = lay_out([["a", "b"], ["b", "c"], ["c", "d"]], dict.fromkeys("abcd", 1024))
    assert layout.size == 2048
