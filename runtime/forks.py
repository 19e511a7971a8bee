"""Processes that are forked once a model is open, as `gunicorn --preload` does: they code, open others, and end.

A forked process has no threads but one, and whatever waits for another waits for ever: for a lock that it held, or for
its end. Libraries hold locks while they run, so a fork waits for that, but not for long.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_LONGEST_WAIT = 5.0
"""Seconds: after them a fork goes on beside what runs, and a run after a fork that never said that it is over (an
interrupt can come in the middle of either)."""
_loading = threading.RLock()
_sessions: weakref.WeakSet[object] = weakref.WeakSet()


class _Runs:
    """What runs in libraries at the moment, and how many forks wait for an end of that."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running = self.forking = 0


_runs = _Runs()


@contextmanager
def running() -> Iterator[None]:
    """Within it a library runs: no process is forked meanwhile. Begins once those that wait for that are forked."""
    runs = _runs
    with runs.changed:
        if not runs.changed.wait_for(lambda: not runs.forking, _LONGEST_WAIT):
            runs.forking = 0
        runs.running += 1
    try:
        yield
    finally:
        with runs.changed:
            runs.running = max(0, runs.running - 1)
            runs.changed.notify_all()


def let_forks_end(sessions: object) -> None:
    """Lets processes end that are forked while an object has sessions of a library with threads of its own.

    Libraries join these when they let go of sessions, so a forked process keeps those that came from its parent; and
    ONNX Runtime since 1.29 and OpenVINO do when the C library runs what was left to do at exit, so there that is
    nothing.
    """
    _sessions.add(sessions)
    _watch()


def loading() -> threading.RLock:
    """The lock to hold while a codec is opened or a graph is loaded on the host.

    It is free in a forked process, whoever held it before.
    """
    _watch()
    return _loading


@cache
def _watch() -> None:
    if not hasattr(os, "register_at_fork"):
        return
    libc = ctypes.CDLL(None)

    def before() -> None:
        with _runs.changed:
            _runs.forking += 1
            if not _runs.changed.wait_for(lambda: not _runs.running, _LONGEST_WAIT):
                _runs.running = 0

    def in_parent() -> None:
        with _runs.changed:
            _runs.forking = max(0, _runs.forking - 1)
            _runs.changed.notify_all()

    def in_child() -> None:
        global _runs
        _runs = _Runs()
        _loading._at_fork_reinit()  # type: ignore[attr-defined]
        for each in _sessions:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
        if hasattr(libc, "on_exit"):  # of glibc
            libc.on_exit(libc._exit, None)  # is called first, with the exit code

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
