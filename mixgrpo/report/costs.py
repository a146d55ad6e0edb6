"""The cost half of a table: evaluations counted, seconds measured, ratios beside those predicted."""

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.document import Entry, Footnotes, Grid, Heading, number
from mixgrpo.report.overhead import SHARINGS, UPDATE_COST, Overhead
from mixgrpo.report.published import Published, as_number
from mixgrpo.report.table_spec import BASE_CELL, NFE_ROLES, TIMED_ROLES, RowSpec, TableSpec

UNITS = {"iteration_seconds": "iteration", "image_seconds": "sampled image"}
NFE_HEADINGS = {"rollout_nfe": "rollout NFE", "update_nfe": "update NFE"}
SHARING_NAMES = {"sharing_on": "shared", "sharing_off": "unshared"}
RATIO_DIGITS = 3
COUNT_DIGITS = 2


def shown_roles(spec: TableSpec) -> list[str]:
    """The roles of `spec` that come from the overhead file."""
    return [role for role in (*NFE_ROLES, *TIMED_ROLES) if spec.column(role) is not None]


def cost_values(
    spec: TableSpec, overhead: Overhead | None, published: Published
) -> pd.DataFrame:
    """Every number of the cost grids: index the cells in order, columns as in the csv; NaN is a blank.

    A ratio is over the first row that was timed; predicted ratios are those of the counted evaluations.
    """
    roles = shown_roles(spec)
    if roles and overhead is None:
        raise UserError(
            f"{spec.table} has the columns {', '.join(roles)} but was given no overhead file. Pass "
            f"--overhead, or remove the columns from {spec.table} in config/tables.yaml."
        )
    cells = [row.cell for row in spec.rows]
    values = pd.DataFrame(index=pd.Index(cells, name="cell"))
    if overhead is None:
        return values
    for sharing in SHARINGS:
        values = values.join(_measured(overhead, sharing, roles))
    for role in NFE_ROLES:
        values[f"ours_{role}"] = values.pop(f"{role}_shared")
        values = values.drop(columns=f"{role}_unshared")
    for role in [role for role in TIMED_ROLES if role in roles]:
        for sharing in SHARING_NAMES.values():
            values[f"ratio_{role}_{sharing}"] = _ratio(values[f"{role}_{sharing}"])
            values[f"predicted_{role}_{sharing}"] = _ratio(values.pop(f"cost_{role}_{sharing}"))
        printed = [as_number(published.get((cell, role), "")) for cell in cells]
        paper = pd.Series(printed, index=values.index, dtype=float)
        values[f"paper_ratio_{role}"] = _ratio(paper[values[f"{role}_shared"].notna()])
    return values


def _measured(overhead: Overhead, sharing: str, roles: list[str]) -> pd.DataFrame:
    rows = {}
    for cell in overhead.rows:
        measurement = overhead.measured(cell, sharing)
        rows[cell] = {
            "rollout_nfe": measurement.rollout_nfe,
            "update_nfe": measurement.update_nfe,
            "counted_rollout": measurement.counted_rollout_evaluations,
            "counted_update": measurement.counted_update_evaluations,
        }
        for role in [role for role in TIMED_ROLES if role in roles]:
            rows[cell][role] = getattr(measurement, role)
            rows[cell][f"cost_{role}"] = measurement.predicted_cost(role)
    return pd.DataFrame.from_dict(rows, orient="index").add_suffix(f"_{SHARING_NAMES[sharing]}")


def _ratio(values: pd.Series) -> pd.Series:
    """Over the first value that is there."""
    present = values.dropna()
    return values / present.iloc[0] if len(present) else values


def cost_grids(
    spec: TableSpec, values: pd.DataFrame, published: Published, footnotes: Footnotes
) -> list[Grid]:
    """Evaluations per image, then one grid for each timed role. The base iterates nothing: no row."""
    rows = [row for row in spec.rows if row.cell != BASE_CELL]
    roles = shown_roles(spec)
    grids = []
    if set(roles) & set(NFE_ROLES):
        grids.append(_nfe_grid(spec, rows, values, published, footnotes))
    for role in [role for role in TIMED_ROLES if role in roles]:
        grids.append(_timed_grid(spec, rows, values, published, footnotes, role))
    return grids
