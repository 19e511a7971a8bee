from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    words = ["condic-train", "--steps", "1", "--data", str(tmp_path)]
    hidden = f"import sys; sys.modules['torch'] = None; sys.argv = {words}; "
    program = hidden + "from condic.training.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "condic-train: this needs torch: pip install 'condic[train]'\n")
