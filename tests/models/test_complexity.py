"""Presets stay within the sizes that the documentation states."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from condic.models.complexity import costs  # noqa: E402
from condic.models.dcic_sgp import DcicSgp  # noqa: E402

MILLION = 1e6


def totals(preset: str) -> tuple[float, float, float]:
    """Parameters, and kMAC per pixel of encoding and of decoding."""
    rows = costs(preset)
    return (
        sum(row.parameters for row in rows),
        sum(row.kmac for row in rows if row.encode),
        sum(row.kmac for row in rows if row.decode),
    )


@pytest.mark.parametrize(
    ("preset", "parameters", "kmac"),
    [("t", (0, 0.1), (0, 2)), ("s", (5.5, 6.7), (30, 50)), ("b", (10, 15), (100, 150)), ("l", (60, 200), (300, 2000))],
)
def test_a_preset_has_its_size(preset: str, parameters: tuple[float, float], kmac: tuple[float, float]) -> None:
    count, encode, decode = totals(preset)
    assert parameters[0] * MILLION <= count <= parameters[1] * MILLION
    assert kmac[0] <= encode + decode <= kmac[1]


def test_costs_are_those_of_a_layer_counted_by_hand() -> None:
    """Preset t's synthesis head: a 1x1 convolution from 16 to 3 * 64 channels at 1/8, and its stem at 1/16."""
    rows = {row.role: row for row in costs("t")}
    network = DcicSgp("t").synthesis
    head, stem = network.head.conv, network.stem
    by_hand = (head.weight.numel() / 64 + stem.weight.numel() / 256) / 1000
    assert by_hand < rows["synthesis"].kmac < 60 * by_hand
    assert rows["synthesis"].parameters == sum(p.numel() for p in network.parameters())


def test_encoding_runs_what_decoding_does_and_more() -> None:
    rows = {row.role: row for row in costs("s")}
    assert {role for role, row in rows.items() if not row.decode} == {"prior_analysis", "analysis", "hyper_analysis"}
    assert {role for role, row in rows.items() if not row.encode} == {"synthesis"}
    assert {role for role, row in rows.items() if row.encode and row.decode} == {
        "prior_context", "prior_synthesis", "hyper_synthesis", "context"
    }  # fmt: skip
