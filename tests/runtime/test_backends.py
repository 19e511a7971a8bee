"""How backends are found, and what their libraries do without being asked."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from condic.errors import BackendError
from condic.runtime import backends
from condic.runtime.backends import BackendOptions, open_backend, open_graphs
from condic.runtime.bundle import Bundle
from condic.runtime.codec import Codec

_CODE = """
import sys
import numpy, condic
image = numpy.zeros((20, 20, 3), numpy.uint8)
condic.encode(image, model=sys.argv[1], backend=sys.argv[2])
"""


def test_an_installation_without_its_metadata_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "entry_points", lambda group: ())
    backends._registered.cache_clear()
    for backend in ("auto", "ort"):
        with pytest.raises(BackendError, match=r"metadata \(the folder condic-\*\.dist-info\) is not where condic is"):
            open_graphs(bundle, backend)
    monkeypatch.undo()
    assert backends.backend_names()


@pytest.mark.skipif(sys.platform == "win32", reason="its home folder is not the environment's")
@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_library_leaves_nothing_in_the_home_folder_and_says_nothing(
    backend: str, bundle_path: Path, tmp_path: Path
) -> None:
    """As what reports its use does: an identity of the user there, and warnings where there is no room for it."""
    if find_spec({"ort": "onnxruntime", "openvino": "openvino"}[backend]) is None:
        pytest.skip(f"{backend} is not installed")
    kept = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "XDG_CACHE_HOME"}
    command = [sys.executable, "-c", _CODE, str(bundle_path), backend]
    done = subprocess.run(
        command, env=kept | {"HOME": str(tmp_path), "CONDIC_CACHE": ""}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []


def test_a_session_that_fails_says_so_by_its_error_alone(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output may be where the file goes."""
    session = pytest.importorskip("onnxruntime").InferenceSession

    def failing(*_: object) -> None:
        raise RuntimeError("pthread_setaffinity_np failed")

    monkeypatch.setattr(session, "_create_inference_session", failing)
    with pytest.raises(BackendError, match="cannot load graph prior_analysis: pthread_setaffinity"):
        Codec(bundle, "ort").encode(np.zeros((20, 20, 3), np.uint8), 9)
    assert capsys.readouterr().out == ""
    assert open_backend("ort", BackendOptions()).name == "ort"
