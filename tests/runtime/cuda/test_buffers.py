"""Memory of graphs on host arrays: a buffer for each use at a time, as large as the largest, and all given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fake_driver import FakeDriver

from condic.errors import DeviceMemoryError
from condic.runtime.cuda.buffers import Buffers

from .conftest import Bench


@pytest.fixture
def driver(bench: Bench) -> Iterator[FakeDriver]:
    with bench.driver.entered():
        yield bench.driver
        bench.driver.buffers.clear()
    assert bench.driver.left() == {}


def allocations(driver: FakeDriver) -> int:
    return driver.counts["allocate"] + driver.counts["allocate_pinned"]


def test_one_that_is_large_enough_is_lent_again(driver: FakeDriver) -> None:
    buffers, addresses = driver.buffers, []
    for sizes in ((1000, 400), (800, 400), (1000, 100), (1, 1)):
        with buffers.lent(*sizes) as buffer:
            addresses.append(buffer.address)
            assert buffer.size >= sizes[0]
            assert buffer.staging.size >= sizes[1]
    assert len(set(addresses)) == 1
    assert allocations(driver) == 2


def test_it_grows_in_both_parts(driver: FakeDriver) -> None:
    for sizes in ((1000, 100), (100, 400), (1000, 400)):
        with driver.buffers.lent(*sizes):
            pass
    assert allocations(driver) == 4
    assert driver.left() == {"bytes": 1000, "pinned": 400}


def test_uses_at_the_same_time_have_buffers_of_their_own(driver: FakeDriver) -> None:
    with ExitStack() as uses:
        buffers = [uses.enter_context(driver.buffers.lent(100, 50)) for _ in range(3)]
        assert len({buffer.address for buffer in buffers}) == 3
    for _ in range(2):
        with driver.buffers.lent(100, 50):
            pass
    assert allocations(driver) == 6


def test_one_whose_use_failed_is_let_go(driver: FakeDriver) -> None:
    with pytest.raises(KeyError), driver.buffers.lent(100, 50):
        raise KeyError
    assert driver.left() == {}


@pytest.mark.parametrize("scarce", ["allocate", "allocate_pinned"])
def test_where_memory_is_scarce_idle_ones_go_and_no_more_is_taken_than_needed(driver: FakeDriver, scarce: str) -> None:
    buffers = driver.buffers
    with buffers.lent(1000, 10), buffers.lent(1000, 10):
        pass
    asked: list[str] = []

    def fail(name: str) -> None:
        if name == scarce:
            asked.append(name)
            if len(driver.left()) and driver.left().get("bytes", 0) >= 1000:
                raise DeviceMemoryError("full")

    driver.fail = fail
    with buffers.lent(500, 20) as buffer:
        assert (buffer.size, buffer.staging.size) == (500, 20)
    assert len(asked) == 2
    driver.fail = lambda name: None


def test_nothing_is_left_where_there_is_no_memory(driver: FakeDriver) -> None:
    def fail(name: str) -> None:
        if name == "allocate_pinned":
            raise DeviceMemoryError("full")

    driver.fail = fail
    with pytest.raises(DeviceMemoryError), Buffers(driver).lent(100, 50):
        pass
    driver.fail = lambda name: None
    assert driver.left() == {}
