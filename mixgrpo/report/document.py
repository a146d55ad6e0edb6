"""A table before it is markdown, LaTeX or html: entries, headings, grids, and the words around them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from mixgrpo.report.statistics import Summary

Mark = Literal["", "best", "near"]


@dataclass(frozen=True)
class Entry:
    """One place of a grid. An empty text is a blank."""

    text: str = ""
    mark: Mark = ""
    """Best of its column; near: not distinguished from the best by one standard error."""
    footnotes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Heading:
    """A column's head: `what`, `who` says so ("ours", "paper"), and the `group` of columns it is in."""

    what: str
    who: str = ""
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """One printed table. The first column names the rows."""

    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Entry, ...], ...]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.headings) for row in self.rows)


def spans(names: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbours of one name, and how many they are.

    >>> spans(["", "ours", "ours", "paper"])
    [('', 1), ('ours', 2), ('paper', 1)]
    """
    return [(name, len(list(same))) for name, same in itertools.groupby(names)]


@dataclass(frozen=True)
class Document:
    """A report table with everything that a reader must know to read it."""

    name: str
    title: str
    caption: str
    facts: tuple[tuple[str, str], ...]
    """What the values are: (who, sentence), e.g. ("ours", "preset tiny ...")."""
    grids: tuple[Grid, ...]
    legend: tuple[str, ...]
    footnotes: tuple[str, ...]
    data: pd.DataFrame
    """The tidy csv, one row per row and view of the table."""
    origin: str = ""
    """Preset, scale and seeds, in short."""


@dataclass
class Footnotes:
    """Numbers remarks from 1, the same remark once."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> int:
        """The number of `text`."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """`value` with `digits` decimals; None or NaN is a blank.

    >>> number(0.1239, 3), number(0.5, 2, signed=True), number(None, 3)
    ('0.124', '+0.50', '')
    """
    if value is None or math.isnan(value):
        return ""
    return f"{value:{'+' if signed else ''}.{digits}f}"


def with_error(mean: float, error: float | None, digits: int, *, signed: bool = False) -> str:
    """`mean +- error`, or the mean alone when there is no error.

    >>> with_error(0.5, 0.012, 3)
    '0.500 +- 0.012'
    """
    text = number(mean, digits, signed=signed)
    return text if error is None else f"{text} +- {number(error, digits)}"


def with_errors(summary: Summary | None, digits: int, *, signed: bool = False) -> str:
    """`mean +- standard error over seeds (over prompts)`; with one seed `mean +- over prompts`."""
    if summary is None:
        return ""
    text = with_error(summary.mean, summary.error, digits, signed=signed)
    several = len(summary.per_seed) > 1 and summary.prompt_error is not None
    return f"{text} ({number(summary.prompt_error, digits)})" if several else text


def marks(means: Sequence[float | None], errors: Sequence[float | None]) -> list[Mark]:
    """Best: the largest. Near: less than it by at most the best one's own standard error.

    >>> marks([1.0, 2.0, 1.9, None], [0.5, 0.2, 0.0, None])
    ['', 'best', 'near', '']
    """
    known = [mean for mean in means if mean is not None]
    if not known:
        return [""] * len(means)
    best = max(known)
    error = errors[list(means).index(best)] or 0.0
    marked: list[Mark] = []
    for mean in means:
        if mean is None or mean < best - error:
            marked.append("")
        else:
            marked.append("best" if mean == best else "near")
    return marked
