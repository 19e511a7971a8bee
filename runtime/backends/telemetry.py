"""ONNX Runtime and OpenVINO report their use to their makers unless told otherwise; a codec has nothing to report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OF_OPENVINO = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """What is imported within reports nothing, and leaves nothing in the user's home folder.

    Where a program has imported it before, it is as that program wants it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    hidden = _OF_OPENVINO not in sys.modules
    if hidden:
        sys.modules[_OF_OPENVINO] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(_OF_OPENVINO, None)
