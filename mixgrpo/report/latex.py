r"""A document as LaTeX, ready for \input; the preamble needs \usepackage{booktabs,graphicx}."""

import re

from mixgrpo.report.document import Document, Entry, Grid, Heading, spans

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_"},
}
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Shrinks a grid that is wider than the text, and no other."""
EMPHASIS = {"best": r"\textbf{%s}", "near": r"\underline{%s}", "": "%s"}


def render(document: Document) -> str:
    """One `table` environment a grid, captioned and labelled `tab:{name}-{i}`; under the last the notes."""
    parts = [f"% {document.name}. Needs \\usepackage{{booktabs,graphicx}}."]
    for i, grid in enumerate(document.grids, start=1):
        caption = rf"\textbf{{{escaped(document.title)}: {escaped(grid.title)}.}}"
        caption += f" {escaped(document.caption)}" if i == 1 else ""
        notes = _notes(document) if i == len(document.grids) else []
        label = f"tab:{document.name}-{i}"
        parts.append(_environment(grid, caption=caption, label=label, notes=notes))
    return "\n\n".join(parts) + "\n"


def _notes(document: Document) -> list[str]:
    """What a reader must know, small, as wide as the text."""
    notes = [f"{who}: {sentence}" for who, sentence in document.facts] + list(document.legend)
    notes += [f"[{i}] {text}" for i, text in enumerate(document.footnotes, start=1)]
    return [
        r"\par\medskip",
        r"\begin{minipage}{\linewidth}\scriptsize",
        *(rf"{escaped(note)}\par" for note in notes),
        r"\end{minipage}",
    ]


def escaped(text: str) -> str:
    r"""Plain text as LaTeX text; `+-` and a minus before a digit become mathematics.

    >>> print(escaped("tiny_hps: -0.5 +- 0.1 (80 %)"))
    tiny\_hps: $-$0.5 $\pm$ 0.1 (80 \%)
    """
    text = "".join(SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", text.replace("+-", r"$\pm$"))


def _environment(grid: Grid, *, caption: str, label: str, notes: list[str]) -> str:
    lines = [
        r"\begin{table}[tbp]",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\par\smallskip",
        FIT,
        rf"\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}",
        r"\toprule",
        *_heads(grid.headings),
        r"\midrule",
        *(_line([_entry(entry) for entry in row]) for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines)


def _heads(headings: tuple[Heading, ...]) -> list[str]:
    """Groups over a rule as wide as their columns, who, what."""
    lines = []
    groups = spans([heading.group for heading in headings])
    if any(group for group, _ in groups):
        wide = [rf"\multicolumn{{{n}}}{{c}}{{{escaped(group)}}}" for group, n in groups]
        lines += [_line(wide), _rules(groups)]
    whos = [escaped(heading.who) for heading in headings]
    lines += [_line(whos)] if any(whos) else []
    return [*lines, _line([escaped(heading.what) for heading in headings])]


def _rules(groups: list[tuple[str, int]]) -> str:
    rules, column = [], 1
    for group, n in groups:
        rules += [rf"\cmidrule(lr){{{column}-{column + n - 1}}}"] if group else []
        column += n
    return "".join(rules)


def _line(texts: list[str]) -> str:
    first = "{}" if texts[0].startswith(("[", "*")) else ""  # else the line break before eats it
    return first + " & ".join(texts) + r" \\"


def _entry(entry: Entry) -> str:
    text = EMPHASIS[entry.mark] % escaped(entry.text) if entry.text else ""
    return text + "".join(f"$^{{{n}}}$" for n in entry.footnotes)
