"""Writes docs/numbers.md: runs condic-bench on a folder of images (Kodak's) and keeps what it prints.

python docs/make_numbers.py KODAK
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("numbers.md")
COMMANDS = (
    "condic-bench rd KODAK --against jpeg,webp,avif,jxl",
    "condic-bench rd KODAK --model dcic-sgp-s-ms-ssim",
    "condic-bench rd KODAK --model cic-sr-s --levels 0,21,32,42,63",
    "condic-bench rd KODAK --model cic-sr-s-ms-ssim --levels 0,21,42,63",
    "condic-bench size KODAK",
    "condic-bench coder KODAK --levels 32",
)
HEAD = """# Numbers

Every table is what the command above it printed. KODAK is a folder with Kodak's 24 images. `make numbers KODAK=folder`
makes this page again.

BD-rate is the mean difference in rate at equal quality over the range of quality that both curves reach; negative means
fewer bits than the codec named. Curves that condic did not measure itself are Kodak means as published; their sources
are in benchmarks/data/kodak_rd.json.
"""


def output_of(command: str, kodak: Path) -> str:
    """What a command prints on standard output."""
    words = [str(kodak) if word == "KODAK" else word for word in command.split()]
    program = [sys.executable, "-m", "condic.benchmarks", *words[1:]]
    run = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"COLUMNS": "110"})
    return "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())


def main() -> None:
    """Runs all commands, then writes the page."""
    kodak = Path(sys.argv[1])
    parts = [f"    $ {c}\n\n```text\n{output_of(c, kodak)}\n```\n" for c in COMMANDS]
    PAGE.write_text("\n".join([HEAD, *parts]))


if __name__ == "__main__":
    main()
