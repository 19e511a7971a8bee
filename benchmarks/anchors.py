"""Published rate-distortion curves on Kodak, to compare with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from condic.benchmarks.bd_rate import Curve
from condic.benchmarks.metrics import decibels

_KODAK = {f"kodim{k:02}" for k in range(1, 25)}


@dataclass(frozen=True)
class Anchor:
    """A codec as somebody published it: means over Kodak's 24 images. `ms_ssim` in dB, where it was published."""

    name: str
    source: str
    psnr: Curve
    ms_ssim: Curve | None


def kodak_anchors() -> list[Anchor]:
    """All curves that come with condic."""
    text = (files("condic.benchmarks") / "data" / "kodak_rd.json").read_text()
    anchors = []
    for name, row in json.loads(text)["codecs"].items():
        bpp = tuple(row["bpp"])
        ms_ssim = Curve(bpp, tuple(map(decibels, row["ms_ssim"]))) if "ms_ssim" in row else None
        anchors.append(Anchor(name, row["source"], Curve(bpp, tuple(row["psnr"])), ms_ssim))
    return anchors


def is_kodak(images: Sequence[Path]) -> bool:
    """Whether these are Kodak's 24 images, to judge by their names; only then do the anchors mean anything."""
    return sorted(path.stem for path in images) == sorted(_KODAK)
