"""Makes the golden files that do not exist yet; one that exists is never made again.

    python tests/data/make_golden.py

Writes golden/NAME.cdic, and into golden.json what it must decode to for ever: its shape and the SHA-256 of its integer
latents.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle, read_bundle
from condic.runtime.codec import Codec
from condic.runtime.manifest import Deltas
from condic.runtime.metadata import Metadata
from condic.runtime.pictures import Picture, as_picture

DATA = Path(__file__).parent


def image(height: int, width: int, channels: int, noise: float = 4) -> np.ndarray:
    """Waves, checks and noise, uint8 [H, W, C] or, for one channel, [H, W]."""
    rows, columns = np.mgrid[:height, :width]
    generator = np.random.default_rng(height * width + channels)
    planes = [
        110 + 60 * np.sin((rows + (2 + k) * columns) / 23) + 50 * ((rows // 16 + columns // 16) % 2)
        for k in range(channels)
    ]
    result = (
        (np.stack(planes, axis=2) + generator.normal(0, noise, (height, width, channels))).clip(0, 255).astype(np.uint8)
    )
    return result[:, :, 0] if channels == 1 else result


def saturated(bundle: Bundle) -> Codec:
    """An encoder whose latents lie far outside the tables, so that nearly every symbol escapes."""
    gains = {name: bundle.tables[name] * np.float32(1e6) for name in ("quality.prior_gain", "quality.main_gain")}
    return Codec(replace(bundle, tables={**bundle.tables, **gains}), "ort", BackendOptions(threads=1))


def noting_much(bundle: Bundle) -> Codec:
    """An encoder whose guard notes many values of each kind, so that their order counts."""
    deltas = (Deltas(0.05, 0.05, 0.05),)
    latents = tuple(
        replace(x, guard=replace(x.guard, levels=(0,), deltas=deltas)) if x.guard else x
        for x in bundle.manifest.latents
    )
    bundle = replace(bundle, manifest=replace(bundle.manifest, latents=latents))
    return Codec(bundle, "ort", BackendOptions(threads=1))


def main() -> None:
    """Writes the golden files that are missing."""
    bundle = read_bundle(DATA / "dcic-sgp-t.condic")
    codec = Codec(bundle, "ort", BackendOptions(threads=1))
    with_metadata = replace(as_picture(image(20, 30, 3)), metadata=Metadata(b"a profile", b"II*\0 and on", b"<x/>"))
    wanted: dict[str, tuple[Codec, np.ndarray | Picture, int]] = {
        "one-pixel": (codec, image(1, 1, 3), 32),
        "one-row": (codec, image(1, 4000, 3), 10),
        "lowest-quality": (codec, image(130, 250, 3), 0),
        "highest-quality": (codec, image(250, 130, 3), 63),
        "no-padding": (codec, image(256, 128, 3), 32),
        "grey": (codec, image(129, 127, 1), 24),
        "grey-alpha": (codec, image(31, 17, 2), 40),
        "alpha": (codec, image(128, 128, 4), 48),
        "several-lanes": (codec, image(500, 600, 3, noise=60), 63),
        "several-groups": (codec, image(2048, 2048, 3, noise=30), 12),
        "saturated": (saturated(bundle), image(40, 150, 3), 63),
        "metadata": (codec, with_metadata, 20),
    }
    models = dict.fromkeys(wanted, "dcic-sgp-t") | {"guarded": "cic-sr-t"}
    guarded = read_bundle(DATA / "cic-sr-t.condic")
    wanted["guarded"] = noting_much(guarded), image(40, 60, 3), 24
    readers = {"dcic-sgp-t": codec, "cic-sr-t": Codec(guarded, "ort", BackendOptions(threads=1))}
    index = DATA / "golden.json"
    facts = json.loads(index.read_text()) if index.exists() else {}
    for name in [name for name in wanted if name not in facts]:
        encoder, pixels, quality = wanted[name]
        data = encoder.encode(pixels, quality)
        decoded = readers[models[name]].decode(data, latents=True)
        (DATA / "golden" / f"{name}.cdic").write_bytes(data)
        facts[name] = {
            "model": models[name], "shape": decoded.image.shape, "quality": quality,
            "latents_sha256": decoded.latents_sha256(),
        }  # fmt: skip
    rows = [f"{json.dumps(name)}: {json.dumps(fact)}" for name, fact in facts.items()]
    index.write_text("{\n " + ",\n ".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
