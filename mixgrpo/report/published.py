"""The paper's own values, kept as printed: nothing is computed from them but the ratios of times."""

from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.table_spec import TableSpec

Published = dict[tuple[str, str], str]
"""(cell, role) -> the value as printed; a key that is not there was not published."""


def read_published(path: Path, spec: TableSpec) -> Published:
    """Values of the rows and columns of `spec`."""
    try:
        values = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file of published values. config/tables.yaml names it in "
            f"{spec.table}.published; correct the name, or set it to null."
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a csv ({error}). Restore it with git.") from None
    _check(path, values, spec)
    return {
        (row.cell, column.role): str(values.iloc[row.published_row][column.published_column])
        for row in spec.rows
        for column in spec.columns
        if row.published_row is not None and column.published_column is not None
    }


def as_number(text: str) -> float | None:
    """The value as a number; None for a blank or for words.

    >>> as_number("0.313"), as_number("16 (Avg)"), as_number("")
    (0.313, None, None)
    """
    try:
        return float(text)
    except ValueError:
        return None


def _check(path: Path, values: pd.DataFrame, spec: TableSpec) -> None:
    for column in spec.columns:
        if column.published_column not in [None, *values.columns]:
            raise UserError(
                f"{path}: no column {column.published_column!r}, which config/tables.yaml names for "
                f"{column.role} of {spec.table}. There are: {', '.join(values.columns)}."
            )
    for row in spec.rows:
        if row.published_row is not None and not 0 <= row.published_row < len(values):
            raise UserError(
                f"{path}: no row {row.published_row}, which config/tables.yaml names for {row.cell} of "
                f"{spec.table}. There are {len(values)}, counted from 0."
            )
