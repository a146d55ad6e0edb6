"""The cost half of a table: evaluations counted, seconds measured, ratios beside those predicted."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.document import Entry, Footnotes, Grid, Heading, number
from mixgrpo.report.overhead import UPDATE_COST, Overhead
from mixgrpo.report.published import Published, as_number
from mixgrpo.report.table_spec import NFE_ROLES, TIMED_ROLES, TableSpec
from mixgrpo.report.training_metrics import mean_of_runs

UNITS = {"iteration_seconds": "iteration", "image_seconds": "sampled image"}
HEADINGS = {"rollout_nfe": "rollout", "update_nfe": "update"}
MADE = {"rollout_nfe": "rollout_evaluations", "update_nfe": "update_evaluations"}
CLOCKS = {"cpu": "CPU", "wall": "wall"}
SHARINGS = ("shared", "unshared")
NFE_DIGITS = 1
MADE_DIGITS = 2
RATIO_DIGITS = 3
Texts = Mapping[int, str]
"""row -> what stands in it."""


def cost_values(spec: TableSpec, overhead: Overhead | None, published: Published) -> pd.DataFrame:
    """Every number of the cost grids: index the rows in order, columns as in the csv; NaN is a blank.

    A ratio is a row's value over that of the first row that was timed.
    """
    timed = spec.roles(TIMED_ROLES)
    if timed and overhead is None:
        raise UserError(
            f"{spec.table} has the columns {', '.join(timed)} but was given no overhead file. Pass "
            f"--overhead, or remove the columns from {spec.table} in config/tables.yaml."
        )
    values = pd.DataFrame(index=pd.RangeIndex(len(spec.rows)))
    for role in spec.roles(NFE_ROLES):
        for name, metric in ((f"ours_{role}", role), (f"ours_{MADE[role]}", MADE[role])):
            values[name] = [_of_metrics(spec, r, metric) for r in values.index]
    for role in timed:
        assert overhead is not None
        for name, numbers in _timed(spec, overhead, role).items():
            values[name] = numbers
        printed = [as_number(published.get((0, r, role), "")) for r in values.index]
        paper = pd.Series(printed, index=values.index, dtype=float)
        values[f"paper_ratio_{role}"] = _ratio(paper[values[f"{role}_shared"].notna()])
    return values.astype(float)


def _of_metrics(spec: TableSpec, row: int, metric: str) -> float | None:
    """Mean over iterations and seeds."""
    paths = [Path(path) for path in spec.rows[row].entries[0].metrics]
    return mean_of_runs(paths, metric) if paths else None


def _timed(spec: TableSpec, overhead: Overhead, role: str) -> dict[str, pd.Series]:
    columns = {}
    for sharing in SHARINGS:
        seconds, predicted = {}, {}
        for r, row in enumerate(spec.rows):
            both = overhead.rows.get(row.entries[0].cell)
            if both is not None and row.entries[0].trained:
                found = both.sharing_on if sharing == "shared" else both.sharing_off
                seconds[r], predicted[r] = getattr(found, role), found.predicted_cost(role)
        columns[f"{role}_{sharing}"] = pd.Series(seconds, dtype=float)
        columns[f"ratio_{role}_{sharing}"] = _ratio(pd.Series(seconds, dtype=float))
        columns[f"predicted_ratio_{role}_{sharing}"] = _ratio(pd.Series(predicted, dtype=float))
    return columns


def _ratio(values: pd.Series) -> pd.Series:
    """Over the first value that is there."""
    present = values.dropna()
    return values / present.iloc[0] if len(present) else values


def cost_grids(
    spec: TableSpec, values: pd.DataFrame, published: Published, footnotes: Footnotes
) -> list[Grid]:
    """Evaluations per image, then one grid for each timed role; an untrained row iterates nothing."""
    grids = []
    if roles := spec.roles(NFE_ROLES):
        columns: list[tuple[Heading, Texts]] = []
        for role in roles:
            ours = Heading(HEADINGS[role], "ours", "NFE")
            paper = Heading(HEADINGS[role], "paper", "NFE")
            columns.append((ours, _texts(values[f"ours_{role}"], NFE_DIGITS)))
            if _is_published(spec, role):
                columns.append((paper, _printed(spec, published, role)))
        for role in roles:
            made = _texts(values[f"ours_{MADE[role]}"], MADE_DIGITS)
            columns.append((Heading(HEADINGS[role], "ours", "evaluations made"), made))
        what = "Network evaluations per image"
        grids.append(_grid(what, spec, columns, "its evaluations were not counted", footnotes))
    for role in spec.roles(TIMED_ROLES):
        what = f"Seconds per {UNITS[role]}, and their ratios to the first row"
        columns = _timed_columns(spec, values, published, role)
        grids.append(_grid(what, spec, columns, "it was not timed", footnotes))
    return grids


def _timed_columns(
    spec: TableSpec, values: pd.DataFrame, published: Published, role: str
) -> list[tuple[Heading, Texts]]:
    digits = next(column.digits for column in spec.columns if column.role == role)
    columns = []
    for sharing in SHARINGS:
        texts = _texts(values[f"{role}_{sharing}"], digits)
        columns.append((Heading(sharing, "ours", "seconds"), texts))
    if _is_published(spec, role):
        printed = _printed(spec, published, role)
        columns.append((Heading("seconds", "paper", "seconds"), printed))
    for sharing in SHARINGS:
        for who, name in (("ours", "ratio"), ("counted", "predicted_ratio")):
            texts = _texts(values[f"{name}_{role}_{sharing}"], RATIO_DIGITS)
            columns.append((Heading(sharing, who, "ratio"), texts))
    if _is_published(spec, role):
        ratios = _texts(values[f"paper_ratio_{role}"], RATIO_DIGITS)
        columns.append((Heading("ratio", "paper", "ratio"), ratios))
    return columns


def _texts(values: pd.Series, digits: int) -> Texts:
    return {r: number(values[r], digits) for r in range(len(values))}


def _is_published(spec: TableSpec, role: str) -> bool:
    return any(column.role == role and column.published_column for column in spec.columns)


def _printed(spec: TableSpec, published: Published, role: str) -> Texts:
    return {r: published.get((0, r, role), "") for r in range(len(spec.rows))}


def _grid(
    title: str,
    spec: TableSpec,
    columns: list[tuple[Heading, Texts]],
    blank: str,
    footnotes: Footnotes,
) -> Grid:
    """A row that has nothing of ours says so: `blank`."""
    rows = []
    for r in [r for r, row in enumerate(spec.rows) if row.entries[0].trained]:
        label = spec.rows[r].label
        ours = [texts[r] for heading, texts in columns if heading.who != "paper"]
        notes = () if any(ours) else (footnotes.add(f"{label}: {blank}."),)
        entries = (Entry(texts[r]) for _, texts in columns)
        rows.append((Entry(label, footnotes=notes), *entries))
    headings = (Heading("method"), *(heading for heading, _ in columns))
    return Grid(title=title, headings=headings, rows=tuple(rows))


def cost_legend(spec: TableSpec, overhead: Overhead | None) -> list[str]:
    """How to read the cost grids."""
    legend = []
    if spec.roles(NFE_ROLES):
        legend.append(
            "NFE: network evaluations per image as the paper counts them, ours counted in training, mean "
            "over its iterations. Evaluations made: fewer, as what all images of a group have in common "
            "(the steps before the window, and its first step) is evaluated once."
        )
    if spec.roles(TIMED_ROLES) and overhead is not None:
        clock = CLOCKS.get(overhead.clock, overhead.clock)
        legend.append(
            f"Times: {clock} seconds on {overhead.device}, all rows measured side by side in one "
            "process; only their ratios carry over to another machine. Shared: what a group has in "
            "common is evaluated once; unshared: once for every image. Ratios are to the first row, "
            "shared to shared and unshared to unshared. Counted ratios are what the counted evaluations "
            f"predict, if a trained one costs {UPDATE_COST} forward passes and nothing else costs "
            "anything."
        )
    return legend
