"""condic-run info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condic.command_line import TieredCommand
from condic.files import named, read_source
from condic.runtime.commands.setup import json_option, max_pixels_option, report, source_argument
from condic.runtime.shipped import shipped_name

if TYPE_CHECKING:
    from condic.runtime.bitstream import Stream


@click.command(cls=TieredCommand)
@source_argument
@max_pixels_option
@json_option
def info(source: Path, max_pixels: int, as_json: bool) -> None:
    """Says what a file is, without decoding it."""
    from condic.runtime.bitstream import ALPHA, GUARD, MAGIC, METADATA, Flags, Limits, read_stream
    from condic.runtime.metadata import Metadata, unpack_metadata

    data, metadata = read_source(source, MAGIC), Metadata()
    with named(source):
        stream = read_stream(data, Limits(max_pixels))
        if stream.header.flags & Flags.METADATA:
            metadata = unpack_metadata(stream.section(METADATA).payload)
        name = shipped_name(stream.header.bundle_id)
        guard = _guard_facts(stream, len(data), name)
    header = stream.header
    grey, alpha = bool(header.flags & Flags.GREY), bool(header.flags & Flags.ALPHA)
    model = header.bundle_id.hex() + (f" ({name})" if name else "")
    labels = {ALPHA: "alpha", METADATA: "metadata", GUARD: "guard"}
    sections = {labels.get(s.kind, f"latent {s.kind}"): len(s.payload) for s in stream.sections}
    facts = {
        "bytes": len(data), "bpp": len(data) * 8 / (header.width * header.height), "width": header.width,
        "height": header.height, "quality": header.quality, "grey": grey, "alpha": alpha,
        "model": header.bundle_id.hex(), "model_name": name, "sections": sections, "metadata": metadata.sizes(),
    }  # fmt: skip
    if guard:
        facts["guard"] = guard
    kind = ("grey" if grey else "RGB") + (" with alpha" if alpha else "")
    lines = [
        f"{source}: {header.width}x{header.height} {kind}, quality {header.quality}, {len(data)} bytes, "
        f"{facts['bpp']:.3f} bpp, model {model}",
        *(f"  {label:11} {size:9} bytes" for label, size in sections.items()),
        *(f"    {label:11} {size:7} bytes, uncompressed" for label, size in metadata.sizes().items()),
    ]
    if guard:
        lines.append(
            f"  guarded values {guard['values']}, {guard['bits']} bits, {guard['share']:.2%} of the file"
            + "".join(f"\n    {latent:11} delta: {text}" for latent, text in guard["deltas"].items())
        )
    report(facts, "\n".join(lines), as_json)


def _guard_facts(stream: Stream, size: int, name: str | None) -> dict[str, Any]:
    """Number and cost of the values whose rounding the file notes, and the deltas if its model, `name`, is shipped."""
    from condic.runtime.bitstream import GUARD

    section = next((s for s in stream.sections if s.kind == GUARD), None)
    if section is None:
        return {}
    from condic.runtime.bundle import read_bundle  # with numpy: only where there is a guard
    from condic.runtime.guard import count_noted
    from condic.runtime.shipped import find_bundle

    latents = read_bundle(find_bundle(name)).manifest.latents if name else ()
    bits = 8 * len(section.payload)
    return {
        "values": count_noted(section.payload), "bits": bits, "share": bits / 8 / size,
        "deltas": {x.name: x.guard.at(stream.header.quality).describe() for x in latents if x.guard},
    }  # fmt: skip
