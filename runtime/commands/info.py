"""condic-run info."""

from __future__ import annotations

from pathlib import Path

import click

from condic.command_line import TieredCommand
from condic.errors import StreamError
from condic.files import read_source
from condic.runtime.commands.setup import json_option, max_pixels_option, report, source_argument
from condic.runtime.shipped import shipped_name


@click.command(cls=TieredCommand)
@source_argument
@max_pixels_option
@json_option
def info(source: Path, max_pixels: int, as_json: bool) -> None:
    """Says what a file is, without decoding it."""
    from condic.runtime.bitstream import ALPHA, METADATA, Flags, Limits, read_stream
    from condic.runtime.metadata import Metadata, unpack_metadata

    data, metadata = read_source(source), Metadata()
    try:
        stream = read_stream(data, Limits(max_pixels))
        if stream.header.flags & Flags.METADATA:
            metadata = unpack_metadata(stream.section(METADATA).payload)
    except StreamError as error:
        raise type(error)(f"{source}: {error}") from error
    header = stream.header
    grey, alpha = bool(header.flags & Flags.GREY), bool(header.flags & Flags.ALPHA)
    name = shipped_name(header.bundle_id)
    model = header.bundle_id.hex() + (f" ({name})" if name else "")
    labels = {ALPHA: "alpha", METADATA: "metadata"}
    sections = {labels.get(s.kind, f"latent {s.kind}"): len(s.payload) for s in stream.sections}
    facts = {
        "bytes": len(data), "bpp": len(data) * 8 / (header.width * header.height), "width": header.width,
        "height": header.height, "quality": header.quality, "grey": grey, "alpha": alpha,
        "model": header.bundle_id.hex(), "model_name": name, "sections": sections, "metadata": metadata.sizes(),
    }  # fmt: skip
    kind = ("grey" if grey else "RGB") + (" with alpha" if alpha else "")
    lines = [
        f"{source}: {header.width}x{header.height} {kind}, quality {header.quality}, {len(data)} bytes, "
        f"{facts['bpp']:.3f} bpp, model {model}",
        *(f"  {label:11} {size:9} bytes" for label, size in sections.items()),
        *(f"    {label:11} {size:7} bytes, uncompressed" for label, size in metadata.sizes().items()),
    ]
    report(facts, "\n".join(lines), as_json)
