"""`python -m condic.models`: parameters and multiply-accumulates of every preset."""

from __future__ import annotations

from condic.models.complexity import costs
from condic.models.presets import PRESETS


def main() -> None:
    """Prints a table per preset: each network, then encoding, decoding and their sum."""
    for preset in PRESETS:
        rows = costs(preset)
        print(f"dcic-sgp {preset:16} parameters   kMAC/px")
        for row in rows:
            print(f"  {row.role:23} {row.parameters:11,} {row.kmac:9.2f}")
        encode, decode = sum(r.kmac for r in rows if r.encode), sum(r.kmac for r in rows if r.decode)
        parameters = sum(r.parameters for r in rows)
        print(f"  {'total':23} {parameters:11,} {encode + decode:9.2f}  (encode {encode:.2f}, decode {decode:.2f})\n")


if __name__ == "__main__":
    main()
