"""The codecs by name."""

from __future__ import annotations

from condic.errors import InputError
from condic.models.cic_sr import CicSr
from condic.models.cic_sr_presets import CIC_SR_PRESETS
from condic.models.dcic_sgp import DcicSgp
from condic.models.presets import PRESETS

Codec = DcicSgp | CicSr
PRESETS_OF: dict[str, tuple[str, ...]] = {"dcic-sgp": tuple(PRESETS), "cic-sr": tuple(CIC_SR_PRESETS)}


def build_codec(name: str, preset: str, blind: str | None = None) -> Codec:
    """A codec with random weights; `blind` is for ablations. Raises InputError for a preset that it does not have."""
    if preset not in PRESETS_OF[name]:
        raise InputError(f"{name} has no preset {preset}; it has {', '.join(PRESETS_OF[name])}")
    return DcicSgp(preset, blind) if name == "dcic-sgp" else CicSr(preset, blind=blind)
