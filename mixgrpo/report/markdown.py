"""A document as markdown that also reads well as it stands, in a terminal."""

import textwrap

from mixgrpo.report.document import Document, Entry, Grid

WIDTH = 160
"""Characters of the widest table; a wider grid is cut into several that repeat the row names."""
PROSE_WIDTH = 100
EMPHASIS = {"best": "**", "near": "_", "": ""}


def render(document: Document) -> str:
    """The whole document."""
    parts = [f"# {_escaped(document.title)}", _prose(document.caption)]
    parts.append("\n".join(_item(f"{who}: {sentence}") for who, sentence in document.facts))
    for grid in document.grids:
        parts += [f"## {_escaped(grid.title)}"]
        parts += [_table(part) for part in _cut(grid)]
    parts.append("\n".join(map(_item, document.legend)))
    if document.footnotes:
        numbered = (f"[{i}] {text}" for i, text in enumerate(document.footnotes, start=1))
        parts.append("\n".join(map(_item, numbered)))
    return "\n\n".join(filter(None, parts)) + "\n"


def _prose(text: str) -> str:
    return textwrap.fill(text, PROSE_WIDTH, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> str:
    return textwrap.indent(_prose(text), "  ").replace("  ", "- ", 1)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _heads(grid: Grid, index: int) -> list[str]:
    """Group above who above what; no line for what no column says."""
    heading = grid.headings[index]
    said = [
        heading.group if any(other.group for other in grid.headings) else None,
        heading.who if any(other.who for other in grid.headings) else None,
        heading.what,
    ]
    return [_escaped(text) for text in said if text is not None]


def _entry(entry: Entry) -> str:
    emphasis = EMPHASIS[entry.mark]
    footnotes = "".join(f"[{n}]" for n in entry.footnotes)
    return " ".join(filter(None, [f"{emphasis}{_escaped(entry.text)}{emphasis}", footnotes]))


def _column(grid: Grid, index: int) -> list[str]:
    """Heading and entries padded to one width, numbers in line whatever their emphasis."""
    entries = [row[index] for row in grid.rows]
    inset = max(len(EMPHASIS[entry.mark]) for entry in entries)
    texts = _heads(grid, index)
    for entry in entries:
        texts.append(_entry(entry) + " " * (inset - len(EMPHASIS[entry.mark])))
    width = max(map(len, [*texts, "---"]))
    return [text.ljust(width) if index == 0 else text.rjust(width) for text in texts]


def _table(grid: Grid) -> str:
    columns = [_column(grid, index) for index in range(len(grid.headings))]
    head, *rows = (f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))
    widths = [len(column[0]) for column in columns]
    rules = [":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([head, f"|{'|'.join(rules)}|", *rows])


def _cut(grid: Grid) -> list[Grid]:
    """Grids of at most `WIDTH` characters, each with the first column of `grid`."""
    widths = [len(_column(grid, index)[0]) + 3 for index in range(len(grid.headings))]
    pieces: list[list[int]] = [[]]
    for pair in _inseparable(grid):
        if pieces[-1] and 1 + widths[0] + sum(widths[i] for i in [*pieces[-1], *pair]) > WIDTH:
            pieces.append([])
        pieces[-1] += pair
    return [_take(grid, [0, *piece]) for piece in pieces]


def _inseparable(grid: Grid) -> list[list[int]]:
    """Columns but the first, each of the paper's with the column before it."""
    pairs: list[list[int]] = []
    for index in range(1, len(grid.headings)):
        if pairs and grid.headings[index].who == "paper":
            pairs[-1].append(index)
        else:
            pairs.append([index])
    return pairs


def _take(grid: Grid, columns: list[int]) -> Grid:
    return Grid(
        title=grid.title,
        headings=tuple(grid.headings[i] for i in columns),
        rows=tuple(tuple(row[i] for i in columns) for row in grid.rows),
    )
