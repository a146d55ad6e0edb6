"""The paper's own values, kept as printed: nothing is computed from them but the ratios of times."""

from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.table_spec import TableSpec

Published = dict[tuple[int, int, str], str]
"""(view, row, role) -> the value as printed; a key that is not there was not published."""


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
        (v, r, column.role): str(values.iloc[row.published_row][view.published_prefix + name])
        for v, view in enumerate(spec.views)
        for r, row in enumerate(spec.rows)
        for column in spec.columns
        if row.published_row is not None and (name := column.published_column) is not None
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
    for column in [column for column in spec.columns if column.published_column is not None]:
        for view in spec.views:
            name = f"{view.published_prefix}{column.published_column}"
            if name not in values.columns:
                raise UserError(
                    f"{path}: no column {name!r}, which config/tables.yaml names for {column.role} of "
                    f"{spec.table}. There are: {', '.join(values.columns)}."
                )
    for row in spec.rows:
        if row.published_row is not None and not 0 <= row.published_row < len(values):
            raise UserError(
                f"{path}: no row {row.published_row}, which config/tables.yaml names for {row.label} of "
                f"{spec.table}. There are {len(values)}, counted from 0."
            )
