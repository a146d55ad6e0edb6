"""A document as html: one file that needs nothing else, whose article stands in the page of everything too."""

import re
from html import escape

from mixgrpo.report.document import Document, Entry, Grid, Heading, spans

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1140px; padding: 32px 30px 64px; background: #fff; color: #222;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 6px; }
h3 { font-size: 14px; margin: 22px 0 6px; }
p { margin: 0 0 8px; max-width: 80ch; }
.origin, .notes, .facts { color: #555; font-size: 12.5px; }
.facts { margin: 10px 0 0; display: grid; grid-template-columns: fit-content(210px) 1fr; gap: 2px 12px; }
.facts dt { font-weight: 600; }
.facts dd { margin: 0; max-width: 100ch; }
.notes { margin: 14px 0 0; padding-left: 18px; }
.notes li { max-width: 108ch; }
ol.notes { list-style: none; padding-left: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums;
  border-top: 1.5px solid #222; border-bottom: 1.5px solid #222; }
th, td { padding: 3px 7px; text-align: right; white-space: nowrap; }
table.wide { font-size: 11px; }
table.wide th, table.wide td { padding: 3px 4.5px; }
table.wide tr.who th { font-size: 10.5px; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
th { font-weight: 600; white-space: normal; vertical-align: bottom; line-height: 1.2; }
tr.who th { font-weight: 400; color: #777; padding-bottom: 0; font-size: 12px; }
tr.group th { text-align: center; padding-bottom: 1px; }
tr.group th.named { border-bottom: 1px solid #bbb; }
thead tr:last-child th { border-bottom: 1px solid #222; }
tbody tr:first-child td { padding-top: 6px; }
tbody tr:last-child td { padding-bottom: 6px; }
.paper { color: #777; }
td.paper { background: #f7f7f7; }
.best { font-weight: 700; background: #fbe9dc; }
.near { text-decoration: underline; text-decoration-color: #d55e00; text-underline-offset: 3px; }
td small { display: block; font-size: 0.8em; font-weight: 400; color: #777; line-height: 1.1; }
sup { font-size: 10px; color: #777; font-weight: 400; line-height: 0; margin-left: 2px; }
header + article, article + article { margin-top: 56px; padding-top: 28px; border-top: 1px solid #ddd; }
article img { max-width: 100%; height: auto; }
nav ol { columns: 2; padding-left: 0; list-style: none; margin: 4px 0 0; }
nav li { break-inside: avoid; margin: 0 0 3px; }
a { color: #0b5394; text-decoration: none; }
a:hover { text-decoration: underline; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 11px; }
  table, tr.who th { font-size: 8.5px; }
  table.wide, table.wide tr.who th { font-size: 7.5px; }
  h2 { font-size: 15px; }
  h3 { font-size: 10.5px; margin: 12px 0 4px; }
  p { font-size: 10px; }
  .facts, .notes { font-size: 8px; line-height: 1.35; margin-top: 8px; }
  th, td { padding: 2px 4px; }
  .scroll { overflow: visible; }
  header + article, article + article { break-before: page; border: 0; margin: 0; padding: 0; }
  article img { max-height: 17cm; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""
OVER_PROMPTS = re.compile(r"\d \([\d.]+\)$")
"""The second error of an entry, which stands beneath it."""
WIDE = 9
"""More columns than this are set smaller."""
ARTICLE_END = "</article>"


def render(document: Document) -> str:
    """The whole page."""
    return page(document.title, article(document))


def page(title: str, body: str) -> str:
    """An html file around `body`."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def words(text: str) -> str:
    """Text as html, with a proper plus-minus.

    >>> words("mean +- error < 1")
    'mean &plusmn; error &lt; 1'
    """
    return escape(text).replace("+-", "&plusmn;")


def article(document: Document) -> str:
    """Everything that a reader must know, and nothing of the page around it."""
    facts = "".join(
        f"<dt>{words(who)}</dt><dd>{words(sentence)}</dd>" for who, sentence in document.facts
    )
    legend = "".join(f"<li>{words(text)}</li>" for text in document.legend)
    parts = [
        f'<article id="{escape(document.name)}" data-title="{escape(document.title)}" '
        f'data-origin="{escape(document.origin)}">',
        f"<h2>{escape(document.title)}</h2>",
        f"<p>{words(document.caption)}</p>",
        *map(_grid, document.grids),
    ]
    if document.footnotes:
        numbered = enumerate(document.footnotes, start=1)
        items = "".join(f"<li><sup>{i}</sup> {escape(text)}</li>" for i, text in numbered)
        parts.append(f'<ol class="notes">{items}</ol>')
    parts += [f'<dl class="facts">{facts}</dl>', f'<ul class="notes">{legend}</ul>', ARTICLE_END]
    return "\n".join(parts)


def _grid(grid: Grid) -> str:
    rows = "\n".join(f"<tr>{''.join(map(_entry, row, grid.headings))}</tr>" for row in grid.rows)
    wide = _class("wide" if len(grid.headings) > WIDE else "")
    return (
        f'<h3>{escape(grid.title)}</h3>\n<div class="scroll"><table{wide}>\n'
        f"<thead>{_heads(grid.headings)}</thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _heads(headings: tuple[Heading, ...]) -> str:
    lines = []
    if any(heading.group for heading in headings):
        names = spans([heading.group for heading in headings])
        cells = "".join(
            f'<th colspan="{n}"{_class("named" if name else "")}>{escape(name)}</th>'
            for name, n in names
        )
        lines.append(f'<tr class="group">{cells}</tr>')
    if any(heading.who for heading in headings):
        lines.append(f'<tr class="who">{"".join(_head(h, h.who) for h in headings)}</tr>')
    lines.append(f"<tr>{''.join(_head(h, h.what) for h in headings)}</tr>")
    return "".join(lines)


def _head(heading: Heading, text: str) -> str:
    breakable = escape(text).replace("_", "_<wbr>")
    return f"<th{_class(_origin(heading))}>{breakable}</th>"


def _entry(entry: Entry, heading: Heading) -> str:
    is_label = heading.what == "method" and not heading.who
    text = escape(entry.text) if is_label else words(entry.text).replace("-", "&minus;")
    text, error, rest = text.partition(" (") if OVER_PROMPTS.search(text) else (text, "", "")
    inside = f'<span class="near">{text}</span>' if entry.mark == "near" else text
    inside += f"<small>({rest}</small>" if error else ""
    notes = f"<sup>{', '.join(map(str, entry.footnotes))}</sup>" if entry.footnotes else ""
    names = f"{_origin(heading)} {'best' if entry.mark == 'best' else ''}".strip()
    return f"<td{_class(names)}>{inside}{notes}</td>"


def _origin(heading: Heading) -> str:
    return "paper" if heading.who == "paper" else ""


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""
