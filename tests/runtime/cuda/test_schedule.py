"""Strands wait for what they need, and for little else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from condic.runtime.cuda.program import Copy, GraphRun, Strand
from condic.runtime.cuda.schedule import take_turns

NAMES = "abcdef"


def strand(reads: str = "", writes: str = "", length: int = 1) -> Strand:
    """One that copies tensors from and to the device."""
    copies = [Copy(name, 4, up=False) for name in reads] + [Copy(name, 4, up=True) for name in writes]
    return Strand(tuple(copies) * length)


@given(st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), min_size=1, max_size=9))
def test_whatever_shares_a_tensor_that_is_written_is_in_order(given: list[tuple[set[str], set[str]]]) -> None:
    turns = take_turns([strand("".join(reads), "".join(writes)) for reads, writes in given])
    over: list[set[int]] = []  # by what streams and events make sure of
    for number, turn in enumerate(turns):
        behind = [k for k in range(number) if turns[k].stream == turn.stream][-1:]
        direct = {*behind, *turn.after}
        assert all(k < number for k in direct)
        over.append(direct | {x for k in direct for x in over[k]})
        assert turn.before == over[-1]
    for number, (reads, writes) in enumerate(given):
        for k, (read, written) in enumerate(given[:number]):
            if writes & (read | written) or written & reads:
                assert k in over[number]
        assert not number or 0 in over[number]
    assert over[-1] == set(range(len(given) - 1))
    assert (turns[0].stream, turns[-1].stream) == (0, 0)


def test_the_longest_way_stays_on_one_stream_and_what_is_not_needed_yet_runs_beside_it() -> None:
    turns = take_turns([
        strand(writes="a"),
        strand("a", "b", 9),
        strand("b", "f"),  # not needed before the last but one
        strand("a", "c", 3),
        strand("bc", "d", 9),
        strand("df", "e"),
        strand("e"),
    ])  # fmt: skip
    assert [turn.stream for turn in turns] == [0, 0, 1, 2, 0, 0, 0]
    assert [turn.after for turn in turns] == [(), (), (1,), (0,), (3,), (2,), ()]


def test_a_graph_counts_for_more_than_what_is_copied_at_the_end() -> None:
    """As where a latent is done: the image's graph goes on in the urgent stream, not what is copied."""
    graph = Strand((GraphRun("g", ("a",), ("b",), None),))  # type: ignore[arg-type]
    turns = take_turns([strand(writes="a"), strand("a", length=5), graph, strand("b")])
    assert [turn.stream for turn in turns] == [0, 1, 0, 0]


def test_what_reads_the_same_runs_at_the_same_time() -> None:
    turns = take_turns([strand(writes="a"), strand("a", "b"), strand("a", "c"), strand()])
    assert turns[2].before == {0}
    assert take_turns([strand(writes="a"), strand("a", "b"), strand("a", "b"), strand()])[2].before == {0, 1}
