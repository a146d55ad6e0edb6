"""What a table shows: `tables/{table}.json`, which the workflow writes from config/tables.yaml.

    {"table": "table01", "kind": "paper", "title": "...", "caption": "...",
     "preset": "tiny", "scale": "0.5 M parameters, 32 x 32, 60 iterations, 192 prompts",
     "seeds": [0], "dataset": "tiny_hpd", "split": "test", "p_mix": 0.8,
     "columns": [{"role": "hps_v2_1", "name": "tiny_hps", "header": "HPS-v2.1",
                  "published_column": "hps_v2_1", "digits": 3}, ...],
     "rows": [{"cell": "mixgrpo", "label": "MixGRPO", "trained": ["tiny_hps"], "published_row": 4}, ...],
     "published": "config/published/table01.csv"}

`role` is the paper's name of a column, `name` the reward of this preset that plays it. The roles
`rollout_nfe`, `update_nfe`, `iteration_seconds` and `image_seconds` come from the overhead file, every
other role from the scores. `published`, `published_column` and `published_row` (0-based) may be null.
A sweep is kind `gains` whose rows also have `group`, the swept cell, and `value`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixgrpo.config import STRICT
from mixgrpo.report.inputs import read_json

NFE_ROLES = ("rollout_nfe", "update_nfe")
TIMED_ROLES = ("iteration_seconds", "image_seconds")


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """One quantity, ours and (if published) the paper's."""

    role: str
    name: str
    header: str
    published_column: str | None = None
    digits: int = 3

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One cell of the paper's grid, as one row."""

    cell: str
    label: str
    trained: tuple[str, ...] = ()
    """Names of the rewards it was trained on; none for the base."""
    published_row: int | None = None
    group: str | None = None
    """Sweeps: the cell that the value was tried in."""
    value: float | int | str | None = None
    """Sweeps: the value tried."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table, complete: nothing about it is looked up elsewhere."""

    table: str
    kind: Literal["paper", "gains"]
    title: str
    caption: str
    preset: str
    scale: str
    seeds: tuple[int, ...]
    dataset: str
    split: str
    p_mix: float
    columns: tuple[ColumnSpec, ...]
    rows: tuple[RowSpec, ...]
    published: str | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("seeds", "columns", "rows"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: a table needs at least one.")
        cells = [row.cell for row in self.rows]
        twice = sorted({cell for cell in cells if cells.count(cell) > 1})
        if twice:
            raise ValueError(f"rows name {', '.join(twice)} twice: one row a cell.")

    @property
    def score_columns(self) -> tuple[ColumnSpec, ...]:
        """The columns that are rewards."""
        overhead = (*NFE_ROLES, *TIMED_ROLES)
        return tuple(column for column in self.columns if column.role not in overhead)

    @property
    def rewards(self) -> list[str]:
        """Names of every reward the table needs scores of: its columns, and what its rows trained on."""
        names = [column.name for column in self.score_columns]
        names += [name for row in self.rows for name in row.trained]
        return list(dict.fromkeys(names))

    def column(self, role: str) -> ColumnSpec | None:
        """The column that shows `role`, if the table has one."""
        return next((column for column in self.columns if column.role == role), None)


def read_table_spec(path: Path) -> TableSpec:
    """The spec at `path`. UserError names every bad key."""
    return read_json(
        path, TableSpec, remedy=f"`snakemake {path}` writes it from config/tables.yaml"
    )
