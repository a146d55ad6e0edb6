"""Kind `paper`: our scores beside the paper's, and what an iteration costs.

The csv has one row per row of the table: cell, label, trained, preset, seeds, dataset, split, p_mix,
num_images; for each reward `ours_{name}`, `se_{name}`, `paper_{role}`; and the columns of `cost_values`.
"""

from collections.abc import Mapping

import pandas as pd

from mixgrpo.config import BASE_CELL
from mixgrpo.report.costs import cost_grids, cost_legend, cost_values, roles_of
from mixgrpo.report.document import (
    Document,
    Entry,
    Footnotes,
    Grid,
    Heading,
    Mark,
    marks,
    with_error,
)
from mixgrpo.report.overhead import Overhead
from mixgrpo.report.published import Published
from mixgrpo.report.remarks import facts, missing, training_legend
from mixgrpo.report.scores import per_image
from mixgrpo.report.statistics import Summary, summarise
from mixgrpo.report.table_spec import (
    NFE_ROLES,
    TIMED_ROLES,
    ColumnSpec,
    RowSpec,
    TableSpec,
)

Summaries = Mapping[tuple[str, str], Summary]
"""(cell, reward) -> its score; a key that is not there has no score."""


def build(
    spec: TableSpec,
    scores: pd.DataFrame,
    *,
    overhead: Overhead | None = None,
    published: Published | None = None,
) -> Document:
    """`scores`: what `read_scores` returns. `overhead` is needed if the table has columns of it."""
    published = published or {}
    footnotes = Footnotes()
    summaries = summarise_scores(scores)
    costs = cost_values(spec, overhead, published)
    return Document(
        name=spec.table,
        title=spec.title,
        caption=spec.caption,
        facts=facts(spec, scores, published=bool(published)),
        grids=(
            _performance(spec, summaries, published, footnotes),
            *cost_grids(spec, costs, published, footnotes),
        ),
        legend=(*_legend(spec), *cost_legend(spec, overhead)),
        footnotes=tuple(footnotes.texts),
        data=_data(spec, scores, summaries, published).join(costs, on="cell"),
    )


def summarise_scores(scores: pd.DataFrame) -> Summaries:
    """Mean and standard errors of every cell and reward."""
    by_seed: dict[tuple[str, str], dict[int, pd.Series]] = {}
    for (cell, seed, reward), series in per_image(scores).items():
        by_seed.setdefault((cell, reward), {})[seed] = series
    return {key: summarise(series) for key, series in by_seed.items()}


def _performance(
    spec: TableSpec, summaries: Summaries, published: Published, footnotes: Footnotes
) -> Grid:
    headings, columns = [Heading("method")], [[Entry(row.label) for row in spec.rows]]
    for column in spec.score_columns:
        headings.append(Heading(column.name, "ours"))
        columns.append(_ours(spec, column, summaries, footnotes))
        if column.published_column is not None:
            headings.append(Heading(column.header, "paper"))
            columns.append([Entry(published.get((row.cell, column.role), "")) for row in spec.rows])
    rows = tuple(zip(*columns, strict=True))
    return Grid(title="Performance", headings=tuple(headings), rows=rows)


def _ours(
    spec: TableSpec, column: ColumnSpec, summaries: Summaries, footnotes: Footnotes
) -> list[Entry]:
    found = [summaries.get((row.cell, column.name)) for row in spec.rows]
    means = [summary.mean if summary else None for summary in found]
    marked = marks(means, [summary.error if summary else None for summary in found])
    return [
        _entry(spec, row, column, summary, mark, footnotes)
        for row, summary, mark in zip(spec.rows, found, marked, strict=True)
    ]


def _entry(
    spec: TableSpec,
    row: RowSpec,
    column: ColumnSpec,
    summary: Summary | None,
    mark: Mark,
    footnotes: Footnotes,
) -> Entry:
    seeds = list(summary.per_seed) if summary else []
    notes = missing(spec, row, f"score of {column.name}", seeds, footnotes)
    if summary is None:
        return Entry(footnotes=notes)
    text = with_error(summary.mean, summary.error, column.digits)
    return Entry(text, mark=mark, footnotes=notes)


def _legend(spec: TableSpec) -> list[str]:
    return [
        "Bold: the highest of ours. Italics (LaTeX: underlined): below it by no more than its standard error.",
        *training_legend(spec),
    ]


def _data(
    spec: TableSpec, scores: pd.DataFrame, summaries: Summaries, published: Published
) -> pd.DataFrame:
    rows = []
    for row in spec.rows:
        record: dict[str, object] = {
            "cell": row.cell,
            "label": row.label,
            "trained": ";".join(row.trained),
            "preset": spec.preset,
            "seeds": ";".join(map(str, scores.seed[scores.cell == row.cell].unique())),
            "dataset": spec.dataset,
            "split": spec.split,
            "p_mix": 0.0 if row.cell == BASE_CELL else spec.p_mix,
            "num_images": scores.prompt_id[scores.cell == row.cell].nunique(),
        }
        for column in spec.score_columns:
            summary = summaries.get((row.cell, column.name))
            record[f"ours_{column.name}"] = summary.mean if summary else None
            record[f"se_{column.name}"] = summary.error if summary else None
            record[f"paper_{column.role}"] = published.get((row.cell, column.role), "")
        for role in roles_of(spec, (*NFE_ROLES, *TIMED_ROLES)):
            record[f"paper_{role}"] = published.get((row.cell, role), "")
        rows.append(record)
    return pd.DataFrame(rows)
