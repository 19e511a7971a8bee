"""Results of condic-bench as one HTML page that needs no network: plots, tables, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from condic.benchmarks.matrix import Matrix
from condic.benchmarks.pairs import Pairs
from condic.benchmarks.rate_distortion import RateDistortion
from condic.benchmarks.report import exactness, pictures, rates, speed
from condic.benchmarks.report.page import Section, page
from condic.benchmarks.results import Results, read_results
from condic.benchmarks.throughput import Throughput
from condic.files import write_file

KINDS: Mapping[str, type] = {"throughput": Throughput, "rd": RateDistortion, "matrix": Matrix, "pairs": Pairs}
"""Kinds of results that a report shows, and what their content is."""
_SECTIONS: Mapping[str, Callable[[Any], list[Section]]] = {
    "throughput": speed.sections, "rd": rates.sections, "matrix": exactness.sections, "pairs": pictures.sections,
}  # fmt: skip


def read_all(paths: Sequence[Path]) -> list[Results]:
    """Files of results that a report shows. Raises InputError."""
    return [read_results(path, KINDS) for path in paths]


def write_report(results: Sequence[Results], target: Path) -> None:
    """Writes the page. Raises InputError where it cannot be written."""
    parts = [(each.origin, _SECTIONS[each.origin.kind](each.content)) for each in results]
    write_file(target, page(parts).encode(errors="backslashreplace"))  # names that are no text
