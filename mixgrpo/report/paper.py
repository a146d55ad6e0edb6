"""Kind `paper`: our scores beside the paper's, what training gained, and what an iteration costs.

The csv has one row per row and view of the table: what `identity` says; for each reward
`ours_{name}`, `se_prompts_{name}`, `se_seeds_{name}`, `paper_{role}`; the columns of `gain_numbers`, at
`gains_p_mix`; and in the first view the costs.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from mixgrpo.report.costs import cost_grids, cost_legend, cost_values
from mixgrpo.report.document import Document, Entry, Footnotes, Grid, Heading, marks, with_errors
from mixgrpo.report.gains import ViewGains, view_gains
from mixgrpo.report.gains_table import gain_numbers, gains_grid, gains_legend
from mixgrpo.report.overhead import Overhead
from mixgrpo.report.published import Published
from mixgrpo.report.remarks import (
    base_facts,
    facts,
    identity,
    missing,
    named,
    origin,
    training_legend,
)
from mixgrpo.report.statistics import Summary, summarise
from mixgrpo.report.table_spec import NFE_ROLES, TIMED_ROLES, ColumnSpec, TableSpec
from mixgrpo.report.views import View

Summaries = Mapping[tuple[int, str], Summary]
"""(row, reward) -> its score in one view; a key that is not there has no score."""


def build(
    spec: TableSpec,
    views: Sequence[View],
    *,
    overhead: Overhead | None = None,
    published: Published | None = None,
) -> Document:
    """`views`: what `read_view` returns. `overhead` is needed if the table has timed columns."""
    published = published or {}
    footnotes = Footnotes()
    costs = cost_values(spec, overhead, published)
    found = [view_gains(view) for view in views]
    grids, data = [], []
    for view, gains in zip(views, found, strict=True):
        summaries = summarise_scores(view)
        grids.append(_performance(view, summaries, published, footnotes))
        if gains.rows:
            grids.append(gains_grid(gains, footnotes))
        data.append(_data(view, summaries, gains, published))
    data[0] = data[0].join(costs)
    return Document(
        name=spec.table,
        title=spec.title,
        caption=spec.caption,
        facts=(*facts(spec, views, published=bool(published)), *base_facts(views)),
        grids=(*grids, *cost_grids(spec, costs, published, footnotes)),
        legend=(
            f"Performance, bold: the highest of ours{_judged(spec)}. Italics (LaTeX and html: "
            "underlined): below it by no more than its standard error.",
            *gains_legend(spec, found),
            *training_legend(spec),
            *cost_legend(spec, overhead),
        ),
        footnotes=tuple(footnotes.texts),
        data=pd.concat(data, ignore_index=True),
        origin=origin(spec),
    )


def _judged(spec: TableSpec) -> str:
    everything = all(spec.is_judged(column) for column in spec.score_columns)
    return "" if everything else ", in what the paper prints too"


def summarise_scores(view: View) -> Summaries:
    """Mean and standard errors of every row and reward."""
    found = {
        (r, column.name): view.scores(entry, column.name)
        for r, _, entry in view.rows()
        for column in view.spec.score_columns
    }
    return {key: summarise(seeds) for key, seeds in found.items() if seeds}


def _performance(
    view: View, summaries: Summaries, published: Published, footnotes: Footnotes
) -> Grid:
    headings = [Heading("method")]
    columns = [[Entry(row.label) for row in view.spec.rows]]
    for column in view.spec.score_columns:
        group = column.group or ""
        headings.append(Heading(column.name, "ours", group))
        columns.append(_ours(view, column, summaries, footnotes))
        if column.published_column is not None:
            headings.append(Heading(column.header, "paper", group))
            keys = [(view.index, r, column.role) for r in range(len(view.spec.rows))]
            columns.append([Entry(published.get(key, "")) for key in keys])
    title = named(view, "Performance", p_mix=view.what.p_mix)
    return Grid(title=title, headings=tuple(headings), rows=tuple(zip(*columns, strict=True)))


def _ours(
    view: View, column: ColumnSpec, summaries: Summaries, footnotes: Footnotes
) -> list[Entry]:
    found = [summaries.get((r, column.name)) for r in range(len(view.spec.rows))]
    means = [summary.mean if summary else None for summary in found]
    errors = [summary.error if summary else None for summary in found]
    marked = marks(means if view.spec.is_judged(column) else [None] * len(means), errors)
    entries = []
    for (_, row, entry), summary, mark in zip(view.rows(), found, marked, strict=True):
        seeds = list(summary.per_seed) if summary else []
        what, p_mix = f"score of {column.name}", view.what.p_mix
        notes = missing(view, row, entry, what, seeds, p_mix, footnotes)
        entries.append(Entry(with_errors(summary, column.digits), mark=mark, footnotes=notes))
    return entries


def _data(view: View, summaries: Summaries, gains: ViewGains, published: Published) -> pd.DataFrame:
    spec = view.spec
    gained = {id(item.row): gain_numbers(item, spec.seeds) for item in gains.rows}
    records = []
    for r, row, entry in view.rows():
        record = identity(view, row, entry, view.what.p_mix)
        for column in spec.score_columns:
            summary = summaries.get((r, column.name))
            record[f"ours_{column.name}"] = summary.mean if summary else None
            record[f"se_prompts_{column.name}"] = summary.prompt_error if summary else None
            record[f"se_seeds_{column.name}"] = summary.seed_error if summary else None
            record[f"paper_{column.role}"] = published.get((view.index, r, column.role), "")
        for role in spec.roles((*NFE_ROLES, *TIMED_ROLES)):
            record[f"paper_{role}"] = published.get((view.index, r, role), "")
        records.append(record | gained.get(id(row), {}))
    return pd.DataFrame(records)
