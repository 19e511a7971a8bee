from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from condic.models.codecs import build_codec  # noqa: E402


@pytest.mark.parametrize(
    ("name", "blind", "provenance"),
    [
        ("dcic-sgp", None, {}),
        ("dcic-sgp", "analysis", {"blind": "analysis"}),
        ("cic-sr", None, {"stage": "conditional"}),
        ("cic-sr", "condition", {"stage": "conditional", "blind": "condition"}),
    ],
)
def test_weights_tell_the_stage_and_the_ablation_that_they_are_of(name, blind, provenance):
    model = build_codec(name, "t", blind)
    if name == "cic-sr":
        model.begin("conditional")
    assert model.provenance() == provenance
