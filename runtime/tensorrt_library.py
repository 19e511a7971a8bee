"""The TensorRT that is installed: found, imported late, and its messages kept.

TensorRT is imported here and nowhere else. One logger serves a process: TensorRT keeps the first that it is given.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from condic.errors import BackendError, first_line, install_hint
from condic.runtime.engine_cache import Flavour, numbers_of

_MODULES: tuple[tuple[str, Flavour], ...] = (
    ("tensorrt", "tensorrt"),
    ("tensorrt_rtx", "tensorrt-rtx"),
    ("tensorrt_rtx_bindings", "tensorrt-rtx"),
)
"""Module names and whose they are, in the order in which they are tried."""
_OLDEST = "8.6"
"""Of NVIDIA's TensorRT: older ones lack what engines are built and run with."""
_MOST_MESSAGES = 8
_PLACE = re.compile(r"\s*\bIn \S+ at /\S+")


@dataclass(frozen=True)
class TensorRt:
    """TensorRT's Python module, which of the two products it is, its version, its logger and the last errors."""

    api: Any
    flavour: Flavour
    version: str
    logger: Any
    errors: deque[str]

    def __str__(self) -> str:
        """For people: "TensorRT 10.3.0"."""
        return f"{'TensorRT' if self.flavour == 'tensorrt' else 'TensorRT-RTX'} {self.version}"

    def last_error(self) -> str:
        """The first line of the newest error that TensorRT reported, and forgets all of them.

        Where in TensorRT's source it came up is left out.
        """
        newest = self.errors[-1] if self.errors else "it does not say why"
        self.errors.clear()
        return _PLACE.sub("", " ".join(newest.split("\n")[0].split()))


@cache
def find_tensorrt() -> TensorRt:
    """The first TensorRT that can be imported. Raises BackendError if there is none, or it does not load, or is old."""
    for name, flavour in _MODULES:
        try:
            api = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise _broken(name, error) from error
            continue
        except (ImportError, OSError) as error:
            raise _broken(name, error) from error
        found = adopt(api, flavour)
        if flavour == "tensorrt" and numbers_of(found.version) < numbers_of(_OLDEST):
            raise BackendError(
                f"{found} is older than {_OLDEST}, the oldest that condic works with; update it, or use --backend ort"
            )
        return found
    raise BackendError(
        f"TensorRT is not installed; {install_hint('tensorrt')} for TensorRT-RTX, or NVIDIA's package tensorrt"
    )


def adopt(api: Any, flavour: Flavour) -> TensorRt:
    """A module as `TensorRt`, with a logger that keeps its errors."""
    errors: deque[str] = deque(maxlen=_MOST_MESSAGES)

    class Log(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)

    return TensorRt(api, flavour, api.__version__, Log(), errors)


def _broken(name: str, error: Exception) -> BackendError:
    return BackendError(
        f"{name} is installed and does not load: {first_line(error)}; reinstall it, or use --backend ort"
    )
