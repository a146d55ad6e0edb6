r"""A document as LaTeX, ready for \input; the preamble needs \usepackage{booktabs,graphicx}."""

import re

from mixgrpo.report.document import Document, Entry, Grid, Heading

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
    """One `table` environment a grid, captioned and labelled `tab:{name}-{i}`."""
    legend = [f"{who}: {sentence}" for who, sentence in document.facts] + list(document.legend)
    legend += [f"[{i}] {text}" for i, text in enumerate(document.footnotes, start=1)]
    parts = [f"% {document.name}. Needs \\usepackage{{booktabs,graphicx}}."]
    for i, grid in enumerate(document.grids, start=1):
        caption = rf"\textbf{{{escaped(document.title)}: {escaped(grid.title)}.}}"
        if i == 1:
            caption += " " + " ".join(escaped(text) for text in [document.caption, *legend])
        parts.append(_environment(grid, caption=caption, label=f"tab:{document.name}-{i}"))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    r"""Plain text as LaTeX text; `+-` and a minus before a digit become mathematics.

    >>> print(escaped("tiny_hps: -0.5 +- 0.1 (80 %)"))
    tiny\_hps: $-$0.5 $\pm$ 0.1 (80 \%)
    """
    text = "".join(SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", text.replace("+-", r"$\pm$"))


def _environment(grid: Grid, *, caption: str, label: str) -> str:
    lines = [
        r"\begin{table}[tbp]",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        FIT,
        rf"\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}",
        r"\toprule",
        *_heads(grid.headings),
        r"\midrule",
        *(_line([_entry(entry) for entry in row]) for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _heads(headings: tuple[Heading, ...]) -> list[str]:
    """Who above what."""
    whos = [escaped(heading.who) for heading in headings]
    above = [_line(whos)] if any(whos) else []
    return [*above, _line([escaped(heading.what) for heading in headings])]


def _line(texts: list[str]) -> str:
    first = "{}" if texts[0].startswith(("[", "*")) else ""  # else the line break before eats it
    return first + " & ".join(texts) + r" \\"


def _entry(entry: Entry) -> str:
    text = EMPHASIS[entry.mark] % escaped(entry.text) if entry.text else ""
    return text + "".join(f"$^{{{n}}}$" for n in entry.footnotes)
