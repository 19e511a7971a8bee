"""The matrix of backends in a report."""

from __future__ import annotations

from condic.benchmarks.matrix import Cell, Matrix
from condic.benchmarks.report.page import Section, escape, note


def sections(run: Matrix) -> list[Section]:
    """Encoders down, decoders across."""
    cells = {(cell.encoder, cell.decoder): cell for cell in run.cells}
    head = "".join(f"<th>{escape(name)}</th>" for name in run.backends)
    rows = "".join(
        f"<tr><th scope=row>{escape(encoder)}</th>"
        + "".join(_cell(cells[encoder, decoder], len(run.images)) for decoder in run.backends)
        + "</tr>"
        for encoder in run.backends
    )
    table = (
        "<div class=wide><table class=matrix><caption>Encoded by (down), decoded by (across)</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    about = note(
        "How many images decode to the encoder's own integer latents; the hash of the first image's latents; the "
        "largest difference of a pixel from the picture that the encoding backend decodes.",
        f"{run.model}, level {run.level}, {len(run.images)} images: {', '.join(run.images[:8])}"
        + (", .." if len(run.images) > 8 else ""),
        *run.backends.values(),
    )
    return [Section("matrix", "Any backend decodes any backend's file", about + table)]


def _cell(cell: Cell, images: int) -> str:
    if cell.error is not None:
        return f"<td class=bad>{escape(cell.error)}</td>"
    mark, kind = ("&#10003;", "good") if cell.equal == images else ("&#10007;", "bad")
    levels = "level" if cell.difference == 1 else "levels"
    return (
        f"<td><span class={kind}>{mark} {cell.equal} of {images}</span><br><code>{escape(cell.latents[:12])}</code>"
        f"<br>{cell.difference} grey {levels}</td>"
    )
