"""Files of results, there and back, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from condic.benchmarks.machine import Machine
from condic.benchmarks.results import Origin, Results, read_results, write_results
from condic.benchmarks.throughput import Plan, Throughput
from condic.errors import InputError

MACHINE = Machine("a processor", 2, 2**34, None, "Linux x86_64", "3.11", {"numpy": "2.0"})
ORIGIN = Origin("throughput", "condic-bench throughput", "0.1.0", "2026-01-01 00:00", MACHINE)
RUN = Throughput(Plan(("a.png",), 1, 2, 32, 10, 60.0), (), {"jxl": "not here"})


def test_results_come_back_as_they_were(tmp_path: Path):
    write_results(tmp_path / "a.json", Results(ORIGIN, RUN))
    assert read_results(tmp_path / "a.json", {"throughput": Throughput}) == Results(ORIGIN, RUN)


def test_the_machine_is_described_in_a_line():
    assert MACHINE.describe() == "a processor, 2 processors, 16 GiB, Linux x86_64"
    assert MACHINE.software() == "Python 3.11, numpy 2.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("machine"), "not results of condic-bench"),
        (lambda facts: facts.update(kind="size"), "results of size; this reads those of throughput"),
        (lambda facts: facts["results"].pop("plan"), "another version of condic"),
        (lambda facts: facts["results"]["plan"].update(runs="ten"), "another version of condic"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, change, message: str):
    path = tmp_path / "a.json"
    write_results(path, Results(ORIGIN, RUN))
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match=message) as caught:
        read_results(path, {"throughput": Throughput})
    assert str(path) in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text("<html>")
    with pytest.raises(InputError, match="not results of condic-bench"):
        read_results(tmp_path / "a.json", {"throughput": Throughput})
