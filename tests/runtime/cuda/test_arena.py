"""Tensors that live at the same time lie apart; the others share."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from condic.runtime.cuda.arena import ALIGNMENT, lay_out

NAMES = "abcdefgh"
Place = tuple[int, int]
"""A strand, and the number of an operation there."""


@given(
    strands=st.lists(st.lists(st.lists(st.sampled_from(NAMES), max_size=4), max_size=5), max_size=6),
    sizes=st.fixed_dictionaries({name: st.integers(1, 5000) for name in NAMES}),
    data=st.data(),
)
def test_tensors_that_live_together_never_overlap(
    strands: list[list[list[str]]], sizes: dict[str, int], data: st.DataObject
) -> None:
    before: list[set[int]] = []
    for number in range(len(strands)):
        direct = data.draw(st.sets(st.integers(0, number - 1))) if number else set()
        before.append(direct | {x for each in direct for x in before[each]})
    layout = lay_out(strands, before, sizes)
    uses: dict[str, list[Place]] = {}
    for strand, operations in enumerate(strands):
        for number, names in enumerate(operations):
            for name in names:
                uses.setdefault(name, []).append((strand, number))

    def over(place: Place, other: Place) -> bool:
        return place < other if place[0] == other[0] else place[0] in before[other[0]]

    assert set(layout.offsets) == set(uses)
    for a, b in itertools.combinations(uses, 2):
        pairs = list(itertools.product(uses[a], uses[b]))
        may_share = all(over(x, y) for x, y in pairs) or all(over(y, x) for x, y in pairs)
        begin, end = layout.offsets[a], layout.offsets[a] + sizes[a]
        apart = end <= layout.offsets[b] or layout.offsets[b] + sizes[b] <= begin
        assert apart or may_share
        assert begin % ALIGNMENT == 0
        assert end <= layout.size


def test_a_chain_takes_the_room_of_two_neighbours() -> None:
    sizes = dict.fromkeys("abcd", 1024)
    assert lay_out([[["a", "b"], ["b", "c"], ["c", "d"]]], [()], sizes).size == 2048
    strands = [[["a", "b"]], [["b", "c"]], [["c", "d"]]]
    assert lay_out(strands, [(), {0}, {0, 1}], sizes).size == 2048
    assert lay_out(strands, [(), {0}, {0}], sizes).size == 3 * 1024
