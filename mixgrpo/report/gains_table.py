"""The grid of paired gains, and kind `gains`: a table that is nothing but it, such as a sweep.

The csv of kind `gains` has one row per row and view: what `identity` says, value, best_of_group and the
columns of `gain_numbers`.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.document import (
    Document,
    Entry,
    Footnotes,
    Grid,
    Heading,
    Mark,
    with_error,
    with_errors,
)
from mixgrpo.report.gains import TRAINED, RowGains, ViewGains, view_gains
from mixgrpo.report.remarks import (
    base_facts,
    facts,
    identity,
    missing,
    named,
    origin,
    training_legend,
)
from mixgrpo.report.statistics import Summary
from mixgrpo.report.table_spec import TableSpec
from mixgrpo.report.views import View

DIGITS = 3


def build(spec: TableSpec, views: Sequence[View]) -> Document:
    """Kind `gains`. UserError when a base has no score: gains are measured from it."""
    for view in views:
        _check_bases(view)
    footnotes = Footnotes()
    found = [view_gains(view) for view in views]
    grids = [_sweep_grid(gains, footnotes) for gains in found]
    return Document(
        name=spec.table,
        title=spec.title,
        caption=spec.caption,
        facts=(*facts(spec, views, published=False), *base_facts(views)),
        grids=tuple(grids),
        legend=(*gains_legend(spec, found), *training_legend(spec)),
        footnotes=tuple(footnotes.texts),
        data=_data(found),
        origin=origin(spec),
    )


def _check_bases(view: View) -> None:
    for base in view.bases():
        if not any(cell == base for cell, *_ in view.images):
            raise UserError(
                f"{view.spec.table}: {base} has no score on {view.what.dataset} {view.what.split}, and "
                f"gains are measured from it. Have the workflow score it: a table asks for {base} too."
            )


def gains_grid(gains: ViewGains, footnotes: Footnotes) -> Grid:
    """A row for each trained row: in what it trained on, against another row, in every reward."""
    spec = gains.view.spec
    headings = [Heading("method"), Heading("what it trained on", "mean of")]
    columns = [
        [Entry(item.row.label) for item in gains.rows],
        _entries(gains, TRAINED, "gain in what it trained on", footnotes),
    ]
    if gains.against:
        headings.append(Heading("minus it", _other(gains)))
        columns.append([Entry(_behind(gains, item)) for item in gains.rows])
    for column in spec.score_columns:
        who = _role_in_training(column.name, gains.rows)
        headings.append(Heading(column.name, who, column.group or ""))
        columns.append(_entries(gains, column.name, f"gain in {column.name}", footnotes))
    title = named(gains.view, "Gain over the untrained model", p_mix=gains.view.what.gains_p_mix)
    return Grid(title=title, headings=tuple(headings), rows=tuple(zip(*columns, strict=True)))


def _entries(gains: ViewGains, name: str, what: str, footnotes: Footnotes) -> list[Entry]:
    p_mix = gains.view.what.gains_p_mix
    entries = []
    for item in gains.rows:
        summary = item.gains.get(name)
        seeds = list(summary.per_seed) if summary else []
        notes = missing(gains.view, item.row, item.entry, what, seeds, p_mix, footnotes)
        text = with_errors(summary, DIGITS, signed=True)
        entries.append(Entry(text, mark=item.marks[name], footnotes=notes))
    return entries


def _other(gains: ViewGains) -> str:
    if gains.against == "reference" and gains.reference is not None:
        return gains.reference.row.label
    return "best"


def _behind(gains: ViewGains, item: RowGains) -> str:
    against_best = gains.against == "best"
    summary = item.behind_best.get(TRAINED) if against_best else item.behind_reference
    return with_errors(summary, DIGITS, signed=True)


def _role_in_training(name: str, rows: list[RowGains]) -> str:
    trained = [name in item.entry.trained for item in rows]
    return "trained" if all(trained) else "" if any(trained) else "held out"


def _sweep_grid(gains: ViewGains, footnotes: Footnotes) -> Grid:
    """The same with a column for each seed, and the labels of the best marked too."""
    grid = gains_grid(gains, footnotes)
    seeds = gains.view.spec.seeds if len(gains.view.spec.seeds) > 1 else ()
    headings = [grid.headings[0], *(Heading(f"seed {seed}") for seed in seeds), *grid.headings[1:]]
    rows = []
    for item, (label, *entries) in zip(gains.rows, grid.rows, strict=True):
        mark: Mark = "best" if item.marks[TRAINED] == "best" else ""
        per_seed = [Entry(_of_seed(item.gains.get(TRAINED), seed), mark=mark) for seed in seeds]
        rows.append((replace(label, mark=mark), *per_seed, *entries))
    return Grid(title=grid.title, headings=tuple(headings), rows=tuple(rows))


def _of_seed(summary: Summary | None, seed: int) -> str:
    if summary is None or seed not in summary.per_seed:
        return ""
    estimate = summary.per_seed[seed]
    return with_error(estimate.mean, estimate.error, DIGITS, signed=True)


def gains_legend(spec: TableSpec, found: Sequence[ViewGains]) -> list[str]:
    """How to read the grids of gains."""
    legend = [
        "Gain: mean over prompts of the score minus the untrained model's on the same prompt and noise, "
        "in units of the untrained model's sd over prompts."
    ]
    against = {gains.against for gains in found} - {""}
    if "reference" in against:
        legend.append(
            "Minus it: paired difference of gains on the same prompt, noise and training seed, in the "
            "rewards that the first of the two trained on."
        )
    if "best" in against:
        legend.append(
            "Best minus it: paired difference of gains on the same prompt, noise and training seed, to "
            "the best of the rows that trained on the same rewards."
        )
    whose = " of its method" if any(row.group is not None for row in spec.rows) else ""
    legend.append(
        f"Gains, bold: the largest{whose}. Italics (LaTeX and html: underlined): less than it by no more "
        "than one standard error of their paired difference. In what they trained on, rows are compared "
        "with those that trained on the same rewards."
    )
    return legend


def gain_numbers(item: RowGains, seeds: Sequence[int]) -> dict[str, float | None]:
    """Of one row, for each reward and for `trained`: gains, errors, and by how much less than the best."""
    numbers: dict[str, float | None] = {}
    for name in item.marks:
        summary = item.gains.get(name)
        numbers |= _numbers("gain", name, summary)
        for seed in seeds:
            estimate = summary.per_seed.get(seed) if summary else None
            numbers[f"gain_{name}_seed{seed}"] = estimate.mean if estimate else None
            numbers[f"gain_se_{name}_seed{seed}"] = estimate.error if estimate else None
        numbers |= _numbers("behind_best", name, item.behind_best.get(name))
    return numbers | _numbers("behind_reference", TRAINED, item.behind_reference)


def _numbers(what: str, name: str, summary: Summary | None) -> dict[str, float | None]:
    return {
        f"{what}_{name}": summary.mean if summary else None,
        f"{what}_se_prompts_{name}": summary.prompt_error if summary else None,
        f"{what}_se_seeds_{name}": summary.seed_error if summary else None,
    }


def _data(found: Sequence[ViewGains]) -> pd.DataFrame:
    records = []
    for gains in found:
        for item in gains.rows:
            record = identity(gains.view, item.row, item.entry, gains.view.what.gains_p_mix)
            record |= {
                "group": item.row.group,
                "value": item.row.value,
                "best_of_group": item.marks[TRAINED] == "best",
            }
            records.append(record | gain_numbers(item, gains.view.spec.seeds))
    return pd.DataFrame(records)
