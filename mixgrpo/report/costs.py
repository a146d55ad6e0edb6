"""The cost half of a table: evaluations counted, seconds measured, ratios beside those predicted."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mixgrpo.config import BASE_CELL
from mixgrpo.errors import UserError
from mixgrpo.report.document import Entry, Footnotes, Grid, Heading, number
from mixgrpo.report.overhead import UPDATE_COST, Overhead, SharedAndNot
from mixgrpo.report.published import Published, as_number
from mixgrpo.report.table_spec import NFE_ROLES, TIMED_ROLES, RowSpec, TableSpec

UNITS = {"iteration_seconds": "iteration", "image_seconds": "sampled image"}
NFE_HEADINGS = {"rollout_nfe": "rollout NFE", "update_nfe": "update NFE"}
CLOCKS = {"cpu": "CPU", "wall": "wall"}
SHARINGS = ("shared", "unshared")
PARTS = ("rollout", "update")
COUNT_DIGITS = 2
RATIO_DIGITS = 3


def roles_of(spec: TableSpec, kind: Sequence[str]) -> list[str]:
    """The columns of `spec` whose role is in `kind`: `NFE_ROLES` or `TIMED_ROLES`."""
    return [column.role for column in spec.columns if column.role in kind]


def cost_values(spec: TableSpec, overhead: Overhead | None, published: Published) -> pd.DataFrame:
    """Every number of the cost grids: index the cells in order, columns as in the csv; NaN is a blank.

    A ratio is a cell's value over that of the first row that was timed.
    """
    cells = pd.Index([row.cell for row in spec.rows], name="cell")
    roles = roles_of(spec, (*NFE_ROLES, *TIMED_ROLES))
    if not roles:
        return pd.DataFrame(index=cells)
    if overhead is None:
        raise UserError(
            f"{spec.table} has the columns {', '.join(roles)} but was given no overhead file. Pass "
            f"--overhead, or remove the columns from {spec.table} in config/tables.yaml."
        )
    rows = {cell: _numbers(row, roles) for cell, row in overhead.rows.items()}
    values = pd.DataFrame.from_dict(rows, orient="index").reindex(cells)
    for role in roles_of(spec, TIMED_ROLES):
        for sharing in SHARINGS:
            values[f"ratio_{role}_{sharing}"] = _ratio(values[f"{role}_{sharing}"])
            predicted = values.pop(f"cost_of_{role}_{sharing}")
            values[f"predicted_ratio_{role}_{sharing}"] = _ratio(predicted)
        printed = [as_number(published.get((cell, role), "")) for cell in cells]
        paper = pd.Series(printed, index=cells, dtype=float)
        values[f"paper_ratio_{role}"] = _ratio(paper[values[f"{role}_shared"].notna()])
    return values


def _numbers(row: SharedAndNot, roles: Sequence[str]) -> dict[str, float]:
    shown = [role for role in NFE_ROLES if role in roles]
    numbers = {f"ours_{role}": getattr(row.sharing_on, role) for role in shown}
    for sharing, measured in zip(SHARINGS, (row.sharing_on, row.sharing_off), strict=True):
        numbers[f"counted_rollout_{sharing}"] = measured.counted_rollout_evaluations
        numbers[f"counted_update_{sharing}"] = measured.counted_update_evaluations
        for role in [role for role in TIMED_ROLES if role in roles]:
            numbers[f"{role}_{sharing}"] = getattr(measured, role)
            numbers[f"cost_of_{role}_{sharing}"] = measured.predicted_cost(role)
    return numbers


def _ratio(values: pd.Series) -> pd.Series:
    """Over the first value that is there."""
    present = values.dropna()
    return values / present.iloc[0] if len(present) else values


Texts = Mapping[str, str]
"""cell -> what stands in its row."""


def cost_grids(
    spec: TableSpec, values: pd.DataFrame, published: Published, footnotes: Footnotes
) -> list[Grid]:
    """Evaluations per image, then one grid for each timed role. The base iterates nothing: no row."""
    grids = []
    if nfe_roles := roles_of(spec, NFE_ROLES):
        columns: list[tuple[Heading, Texts]] = []
        for role in nfe_roles:
            heading = NFE_HEADINGS[role]
            columns.append((Heading(heading, "ours"), _texts(values[f"ours_{role}"], 1)))
            columns.append((Heading(heading, "paper"), _printed(spec, published, role)))
        for part in PARTS:
            for sharing in SHARINGS:
                texts = _texts(values[f"counted_{part}_{sharing}"], COUNT_DIGITS)
                columns.append((Heading(f"{part}, {sharing}", "counted"), texts))
        grids.append(_grid("Network evaluations per image", spec, columns, values, footnotes))
    for role in roles_of(spec, TIMED_ROLES):
        title = f"Seconds per {UNITS[role]}, and their ratios to the first row"
        grids.append(
            _grid(title, spec, _timed_columns(spec, values, published, role), values, footnotes)
        )
    return grids


def _timed_columns(
    spec: TableSpec, values: pd.DataFrame, published: Published, role: str
) -> list[tuple[Heading, Texts]]:
    digits = next(column.digits for column in spec.columns if column.role == role)
    columns = [
        (Heading(f"s, {sharing}", "ours"), _texts(values[f"{role}_{sharing}"], digits))
        for sharing in SHARINGS
    ]
    columns.append((Heading("s", "paper"), _printed(spec, published, role)))
    for sharing in SHARINGS:
        heading = f"ratio, {sharing}"
        for who, name in (("ours", "ratio"), ("counted", "predicted_ratio")):
            texts = _texts(values[f"{name}_{role}_{sharing}"], RATIO_DIGITS)
            columns.append((Heading(heading, who), texts))
    ratios = _texts(values[f"paper_ratio_{role}"], RATIO_DIGITS)
    return [*columns, (Heading("ratio", "paper"), ratios)]


def _texts(values: pd.Series, digits: int) -> Texts:
    return {str(cell): number(value, digits) for cell, value in values.items()}


def _printed(spec: TableSpec, published: Published, role: str) -> Texts:
    return {row.cell: published.get((row.cell, role), "") for row in spec.rows}


def _grid(
    title: str,
    spec: TableSpec,
    columns: list[tuple[Heading, Texts]],
    values: pd.DataFrame,
    footnotes: Footnotes,
) -> Grid:
    rows = []
    for row in [row for row in spec.rows if row.cell != BASE_CELL]:
        label = Entry(row.label, footnotes=_unmeasured(row, values, footnotes))
        rows.append((label, *(Entry(texts[row.cell]) for _, texts in columns)))
    headings = (Heading("method"), *(heading for heading, _ in columns))
    return Grid(title=title, headings=headings, rows=tuple(rows))


def _unmeasured(row: RowSpec, values: pd.DataFrame, footnotes: Footnotes) -> tuple[int, ...]:
    if values.loc[row.cell].notna().any():
        return ()
    return (footnotes.add(f"{row.label}: its cost was not measured."),)


def cost_legend(spec: TableSpec, overhead: Overhead | None) -> list[str]:
    """How to read the cost grids."""
    if overhead is None or not roles_of(spec, (*NFE_ROLES, *TIMED_ROLES)):
        return []
    legend = [
        "NFE: the paper's accounting of network evaluations, per image, averaged over the schedule of "
        "the window; counted: evaluations that were really made.",
        "shared: what all images of a group have in common (the steps before the window, and its "
        "first step) is evaluated once; unshared: once for every image.",
    ]
    if roles_of(spec, TIMED_ROLES):
        clock = CLOCKS.get(overhead.clock, overhead.clock)
        legend.append(
            f"Times: {clock} seconds on {overhead.device}, all rows measured side by side in one "
            "process; only their ratios carry over to another machine. Ratios are to the first row, "
            "shared to shared and unshared to unshared. Counted ratios are what the counted evaluations "
            f"predict, if a trained one costs {UPDATE_COST} forward passes and nothing else costs "
            "anything."
        )
    return legend
