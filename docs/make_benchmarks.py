"""Writes the figures of docs/benchmarks.md and out/benchmarks/report.html: runs condic-bench and keeps what it prints.

python docs/make_benchmarks.py KODAK [PYTHON-WITH-COMPRESSAI]
"""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

PAGE = Path(__file__).with_name("benchmarks.md")
OUT = Path("out/benchmarks")
MARK = "## Latest figures\n"
SPEED = "condic-bench throughput --models dcic-sgp:s,cic-sr:s --images KODAK --threads 2"
SMALL = (
    f"{SPEED} --resolutions 512x768 --compressai PYTHON"
    " --peers jpeg,webp,avif,jxl,bmshj2018-hyperprior,mbt2018-mean:3,mbt2018-mean,cheng2020-anchor:3 --json small.json"
)
LARGE = f"{SPEED} --resolutions 720p,1080p,4k --peers jpeg,webp,avif,jxl --json large.json"
MATRIX = "condic-bench matrix KODAK --json matrix.json"
UNPRINTED = (
    "condic-bench rd KODAK --against jpeg,webp,avif,jxl --json rd.json",
    "condic-bench pairs PICTURES --against jpeg,webp,avif,jxl --json pairs.json",
    "condic-bench report small.json large.json rd.json matrix.json pairs.json --html report.html",
)


def run(command: str, names: dict[str, list[str]]) -> str:
    """What a command prints on standard output; KODAK and the like stand for what `names` has.

    Exit code 1, of a configuration that failed or is missing, is part of the results.
    """
    words = [value for word in command.split()[1:] for value in names.get(word, [word])]
    done = subprocess.run(
        [sys.executable, "-m", "condic.benchmarks", *words], cwd=OUT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    return done.stdout.strip()


def main() -> None:
    """Runs all commands, then writes the page."""
    kodak = Path(sys.argv[1]).resolve()
    pictures = [kodak / name for name in ("kodim04.png", "kodim19.png", "kodim23.png")]
    names = {
        "KODAK": [str(kodak)],
        "PYTHON": [str(Path(sys.argv[2]).absolute()) if len(sys.argv) > 2 else sys.executable],
        "PICTURES": [str(path) for path in pictures if path.exists()] or [str(kodak)],
    }
    OUT.mkdir(parents=True, exist_ok=True)
    shown = [f"    $ {command}\n\n```text\n{run(command, names)}\n```\n" for command in (SMALL, LARGE, MATRIX)]
    for command in UNPRINTED:
        run(command, names)
    PAGE.write_text("\n".join([PAGE.read_text().partition(MARK)[0] + MARK, f"Of {date.today()}.\n", *shown]))
    print(f"{PAGE} and {OUT / 'report.html'}")


if __name__ == "__main__":
    main()
