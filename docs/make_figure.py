"""Draws docs/pictures/exactness.svg: what is computed in integers and what in floating point, on both sides of a file.

python docs/make_figure.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

FIGURE = Path(__file__).parent / "pictures" / "exactness.svg"
WIDTH, HEIGHT = 1000, 520
FLOAT, EXACT, PLAIN = ("#fdebd3", "#c7791c"), ("#dbe9fb", "#2a62ad"), ("#f2f2f2", "#777777")


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre, with lines of text; `fill` and `stroke` say what kind of numbers it works with."""

    x: int
    y: int
    width: int
    lines: tuple[str, ...]
    kind: tuple[str, str]
    height: int = 56

    def svg(self) -> str:
        """The box and its text."""
        fill, stroke = self.kind
        left, top = self.x - self.width // 2, self.y - self.height // 2
        first = self.y + 5 - 9 * (len(self.lines) - 1)
        text = "".join(
            f"<text x='{self.x}' y='{first + 18 * k}' font-size='14' text-anchor='middle'>{escape(line)}</text>"
            for k, line in enumerate(self.lines)
        )
        return (
            f"<rect x='{left}' y='{top}' width='{self.width}' height='{self.height}' rx='6' fill='{fill}' "
            f"stroke='{stroke}' stroke-width='1.5'/>{text}"
        )


def arrow(*points: tuple[int, int], label: str = "", at: tuple[int, int] | None = None, anchor: str = "middle") -> str:
    """A line through points with a head at the end, and a label."""
    path = "M" + " L".join(f"{x},{y}" for x, y in points)
    line = f"<path d='{path}' fill='none' stroke='#333' stroke-width='1.5' marker-end='url(#head)'/>"
    if not label or at is None:
        return line
    text = f"<text x='{at[0]}' y='{at[1]}' font-size='13' text-anchor='{anchor}' fill='#333'>{escape(label)}</text>"
    return line + text


def words(x: int, y: int, text: str, size: int = 13, weight: str = "normal", fill: str = "#333") -> str:
    """A line of text from a point on."""
    return f"<text x='{x}' y='{y}' font-size='{size}' font-weight='{weight}' fill='{fill}'>{escape(text)}</text>"


def side(top: int, title: str, decoder: bool) -> list[str]:
    """One row: the encoder from image to file, or the decoder from file to image (drawn from right to left)."""
    float_name = ("synthesis",) if decoder else ("analysis",)
    coder = ("entropy", "decoder" if decoder else "encoder")
    image, network = Box(70, top, 92, ("image",), PLAIN), Box(215, top, 118, (*float_name, "float"), FLOAT)
    if decoder:
        middle = Box(470, top, 168, ("latent = 16 q + mean", "integers"), EXACT)
    else:
        middle = Box(470, top, 168, ("q = round(y - mean)", "integers"), EXACT)
    coding = Box(716, top, 118, coder, EXACT)
    context = Box(470, top + 112, 168, ("context networks", "exact graphs"), EXACT)
    tables = Box(716, top + 112, 118, ("stored tables",), EXACT)
    parts = [box.svg() for box in (image, network, middle, coding, context, tables)]
    if decoder:
        parts += [
            arrow((656, top), (556, top), label="symbols q", at=(606, top - 9)),
            arrow((385, top), (276, top), label="latent", at=(302, top - 9)),
            arrow((155, top), (118, top)),
        ]  # fmt: skip
    else:
        parts += [
            arrow((117, top), (154, top)), arrow((275, top), (384, top), label="y, real", at=(302, top - 9)),
            arrow((555, top), (655, top), label="symbols q", at=(606, top - 9)),
        ]  # fmt: skip
    parts += [
        arrow((445, top + 30), (445, top + 82), label="decoded so far", at=(436, top + 60), anchor="end"),
        arrow((495, top + 83), (495, top + 31), label="mean", at=(503, top + 60), anchor="start"),
        arrow((555, top + 112), (655, top + 112), label="scale index", at=(606, top + 103)),
        arrow((716, top + 83), (716, top + 31), label="probabilities", at=(726, top + 60), anchor="start"),
        words(24, top - 54, title, 15, "bold"),
    ]
    return parts


def figure() -> str:
    """The figure as SVG."""
    upper, lower = 90, 330
    file = Box(926, 210, 116, ("file", "symbols and", "checksums"), PLAIN, height=84)
    band = "".join(
        f"<rect x='330' y='{top - 42}' width='504' height='196' rx='10' fill='#f5f9ff' stroke='#2a62ad' "
        "stroke-dasharray='6 4'/>"
        for top in (upper, lower)
    )
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
        "font-family='DejaVu Sans, Verdana, sans-serif'>",
        "<title>What is computed in integers, and what in floating point</title>",
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'>"
        "<path d='M0,0 L10,5 L0,10 z' fill='#333'/></marker></defs>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>", band,
        *side(upper, "Encoder: one machine, one backend", decoder=False),
        *side(lower, "Decoder: another machine, another backend", decoder=True),
        file.svg(),
        arrow((776, upper), (926, upper), (926, 167)),
        arrow((926, 253), (926, lower), (777, lower)),
        f"<rect x='24' y='497' width='14' height='14' fill='{EXACT[0]}' stroke='{EXACT[1]}'/>",
        words(46, 509, "integers: the same bits on every backend"),
        f"<rect x='390' y='497' width='14' height='14' fill='{FLOAT[0]}' stroke='{FLOAT[1]}'/>",
        words(412, 509, "floating point: may differ in the last bits, and moves pixels by rounding at most"),
    ]  # fmt: skip
    return "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    FIGURE.write_text(figure())
