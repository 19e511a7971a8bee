"""`python -m condic.models`: parameters and multiply-accumulates of every preset."""

from __future__ import annotations

from condic.models.codecs import PRESETS_OF
from condic.models.complexity import costs


def main() -> None:
    """Prints a table per preset: each network, then encoding, decoding and their sum."""
    for model, presets in PRESETS_OF.items():
        for preset in presets:
            _print(model, preset)


def _print(model: str, preset: str) -> None:
    rows = costs(preset, model)
    print(f"{f'{model} {preset}':25} parameters   kMAC/px")
    for row in rows:
        print(f"  {row.role:23} {row.parameters:11,} {row.kmac:9.2f}")
    encode, decode = sum(r.kmac for r in rows if r.encode), sum(r.kmac for r in rows if r.decode)
    parameters = sum(r.parameters for r in rows)
    print(f"  {'total':23} {parameters:11,} {encode + decode:9.2f}  (encode {encode:.2f}, decode {decode:.2f})\n")


if __name__ == "__main__":
    main()
