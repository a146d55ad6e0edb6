import doctest
import importlib
from pathlib import Path

import pytest

from mixgrpo import report
from mixgrpo.report.document import Document, Entry, Grid, Heading
from mixgrpo.report.latex import escaped
from mixgrpo.report.latex import render as latex
from mixgrpo.report.markdown import render as markdown

MODULES = sorted(path.stem for path in Path(report.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(f"mixgrpo.report.{name}")).failed == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a_b & 5 % of $3 #1", r"a\_b \& 5 \% of \$3 \#1"),
        ("{~^\\}", r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}"),
        ("-0.5 +- 0.1", r"$-$0.5 $\pm$ 0.1"),
        ("HPS-v2.1, 25/4*", "HPS-v2.1, 25/4*"),
        ("2-3 a-1", "2-3 a-1"),
        ("<|>", r"\textless{}\textbar{}\textgreater{}"),
    ],
)
def test_latex_escapes(text, wanted):
    assert escaped(text) == wanted


def document(*rows):
    headings = (Heading("method"), Heading("x", "ours"))
    entries = tuple(tuple(row) for row in rows)
    return Document(
        name="t",
        title="T",
        caption="C_1",
        facts=(("ours", "50 % of it."),),
        grids=(Grid(title="G", headings=headings, rows=entries),),
        legend=(),
        footnotes=("one_a.",),
        data=None,
    )


def test_numbers_stand_in_line_whatever_their_emphasis():
    text = markdown(
        document(
            (Entry("a"), Entry("0.1", mark="best")),
            (Entry("b"), Entry("0.2", mark="near")),
            (Entry("c|d"), Entry("0.3")),
        )
    )
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "|        |    ours |",
        "|:-------|--------:|",
        "| method |       x |",
        "| a      | **0.1** |",
        "| b      | _0.2_   |".replace("_0.2_  ", " _0.2_ "),
        "| c\\|d   |   0.3   |",
    ]


def test_latex_is_balanced_and_every_row_is_whole():
    text = latex(
        document((Entry("*a"), Entry("-1", mark="best", footnotes=(1,))), (Entry("[b"), Entry()))
    )
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert r"{}*a & \textbf{$-$1}$^{1}$ \\" in text
    assert r"{}[b &  \\" in text
    assert r"\textbf{T: G.} C\_1}" in text
    assert "ours: 50 \\% of it.\\par\n[1] one\\_a.\\par\n" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
