"""Many images one after the other: the second half of one while the first half of the next is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(begin: Callable[[T], Callable[[], R]], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results of `begin(item)()`, in order.

    `begin` runs in the caller's thread, what it returns in one of `workers` others. Items are taken when they are
    needed: no more than `workers` + 1 have been begun and not yet been given out. An error comes in its item's place,
    also one of taking it, and ends it.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="condic") as pool:
        source = iter(items)
        while True:
            try:
                waiting.append(pool.submit(begin(next(source))))
            except StopIteration:
                break
            except Exception as error:
                waiting.append(Future())
                waiting[-1].set_exception(error)
                break
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
