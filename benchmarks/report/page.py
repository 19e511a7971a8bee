"""The page around the sections of a report."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from condic.benchmarks.results import Origin


@dataclass(frozen=True)
class Section:
    """A heading and the HTML below it. `anchor` is unique within results of one kind."""

    anchor: str
    title: str
    body: str


def page(parts: Sequence[tuple[Origin, Sequence[Section]]]) -> str:
    """The page's text, from results with their sections in the order in which they appear."""
    numbered = [
        (origin, [Section(f"{section.anchor}-{k}", section.title, section.body) for section in sections])
        for k, (origin, sections) in enumerate(parts)
    ]
    links = "".join(
        f'<a href="#{section.anchor}">{escape(section.title)}</a>' for _, sections in numbered for section in sections
    )
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.body}</section>'
        for _, sections in numbered
        for section in sections
    )
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta name=color-scheme content='light dark'><title>condic benchmarks</title><style>{_file('style.css')}"
        f"</style></head><body><header><h1>condic benchmarks</h1>{_origins([origin for origin, _ in parts])}"
        f"<nav>{links}</nav></header><main>{body}</main><script>{_file('divider.js')}</script></body></html>\n"
    )


def escape(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def note(*lines: str) -> str:
    """A paragraph in small type, one sentence or fact a line."""
    return f"<p class=note>{'<br>'.join(map(escape, lines))}</p>" if lines else ""


def figure(svg: str, caption: str) -> str:
    """A plot with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """A table whose first column is a name and whose others are numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)

    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', columns)}</tr></thead>"
    return f"<div class=wide><table>{caption}{head}<tbody>{body}</tbody></table></div>"


def folded(summary: str, content: str) -> str:
    """Content that is hidden until its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _origins(origins: Sequence[Origin]) -> str:
    """Machines, then commands, each machine once."""
    machines = dict.fromkeys(f"{origin.machine.describe()}. {origin.machine.software()}." for origin in origins)
    runs = "".join(
        f"<li><code>{escape(origin.command)}</code> <span>{escape(origin.date)} UTC, condic {escape(origin.condic)}"
        "</span></li>"
        for origin in origins
    )
    return f"{note(*machines)}<ul class=runs>{runs}</ul>"


def _file(name: str) -> str:
    return files("condic.benchmarks.report").joinpath(name).read_text()
