"""condic-bench throughput with a backend on a device: the device's memory is measured, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_emulator import DeviceMemory, Emulator
from fake_backend import FakeBackend, registered
from fake_driver import FakeDriver

from condic.benchmarks.photographs import Resolution, find_photographs
from condic.benchmarks.throughput import Configuration, Plan, Row, Throughput
from condic.benchmarks.throughput_tables import tables
from condic.benchmarks.worker import answer


@pytest.mark.parametrize("backend", ["fake", "ort"])
def test_the_memory_of_a_device_is_a_column_where_there_is_one(
    backend: str, emulator: Emulator, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch, bundle_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    registered(FakeBackend(FakeDriver(emulator, memory)), monkeypatch)
    plan = Plan(tuple(map(str, find_photographs(None))), 1, 1, 20, 2, 10)
    configuration = Configuration(str(bundle_path), backend, Resolution("100x60", 100, 60))
    measured = answer(plan, configuration).measured
    assert measured is not None
    run = Throughput(plan, (Row("t", backend, configuration.resolution, measured, None),))
    (table,) = (x for x in tables(run) if x.kind == "memory")
    if backend == "ort":
        assert measured.device_memory is None
        assert "GPU MB" not in table.columns
    else:
        assert measured.device_memory is not None
        assert measured.device_memory > 3 * 100 * 60
        assert (table.columns[-1], table.rows[0][-1]) == ("GPU MB", f"{measured.device_memory / 1e6:,.0f}")
