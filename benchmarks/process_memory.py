"""Memory of this process, in bytes, as Linux counts it; 0 where that is not told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def resident() -> int:
    """Held now."""
    return _status("VmRSS")


def peak() -> int:
    """The most that was held since `reset_peak`, or since the process began where that is not allowed."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Lets `peak` begin anew (proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    values = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(next(values, "0")) * 1024
