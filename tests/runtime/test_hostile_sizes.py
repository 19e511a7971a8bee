"""Small files that claim to be huge: refused before they cost much memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
from condic.errors import StreamError
from condic.runtime.bitstream import Flags, Header, Section, write_stream
from condic.runtime.bundle import read_bundle
from condic.runtime.codec import Codec
from pathlib import Path

codec = Codec(read_bundle(Path(sys.argv[1])), "ort")
payloads = {
    "nothing": bytes(16),
    "one lane": bytes(16) + b"\\0" + (2**16).to_bytes(4, "little"),
    "escapes": bytes(16) + b"\\x10\\xff\\xff\\xff\\x7f" + (2**16).to_bytes(4, "little"),
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for sections in ([], *([Section(k, p) for k in range(3)] for p in payloads.values())):
    header = Header(2**14, 2**14, 20, Flags.NONE, codec.bundle.id, len(sections))
    try:
        codec.decode(write_stream(header, sections))
    except StreamError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in KiB on Linux")
def test_a_small_file_of_268_megapixels_is_refused_in_little_memory(bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-c", CODE, str(bundle_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *errors, grown = done.stdout.splitlines()
    assert len(errors) == 4
    assert int(grown) < 64 * 1024
