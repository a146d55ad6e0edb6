"""What a table shows: `tables/{table}.json`, which the workflow writes from config/tables.yaml.

    {"table": "table11", "kind": "paper", "title": "...", "caption": "...",
     "preset": "tiny", "scale": "0.5 M parameters, 32 x 32, 50 iterations", "seeds": [0],
     "columns": [{"role": "hps_v2_1", "name": "tiny_hps", "header": "HPS-v2.1", "digits": 3,
                  "published_column": "hps_v2_1", "group": null}, ...],
     "views": [{"title": "Experiment 1, in-domain", "dataset": "tiny_hpd", "split": "test",
                "p_mix": 0.8, "gains_p_mix": 1.0, "published_prefix": "exp1_id_"}, ...],
     "rows": [{"label": "Frozen", "published_row": 0, "group": null, "value": null,
               "entries": [{"cell": "mixgrpo_frozen", "base": "base", "trained": ["tiny_hps"],
                            "p_mix": null, "metrics": []}, ...]}, ...],
     "published": "config/published/table11.csv"}

A view is one way to look at all rows: at their pictures of one set of prompts. Most tables have one,
without a title; a row has one entry for each view. `role` is the paper's name of a column, `name` the
reward of this preset that plays it. The roles `rollout_nfe` and `update_nfe` come from the metrics of
training, `iteration_seconds` and `image_seconds` from the overhead file, every other role from the
scores. `published`, `published_column` and `published_row` (0-based) may be null. A sweep is kind
`gains` whose rows also have `group`, the swept cell, and `value`.
"""

from collections import Counter
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
    group: str | None = None
    """What stands above it and its neighbours, such as In Domain."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Which pictures are scored."""

    title: str = ""
    dataset: str
    split: str
    p_mix: float
    """Of the performance grid."""
    gains_p_mix: float
    """Of the gains grid."""
    published_prefix: str = ""
    """What the names of its columns begin with in the published csv."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class EntrySpec:
    """What a row is in one view: a cell, and how its pictures are sampled."""

    cell: str
    base: str
    """The untrained cell of its model, which gains are paired with."""
    trained: tuple[str, ...] = ()
    """Names of the rewards it was trained on; none for an untrained cell."""
    p_mix: float | None = None
    """In place of the view's p_mix and gains_p_mix."""
    metrics: tuple[str, ...] = ()
    """metrics.jsonl of each of its seeds, if the table counts evaluations."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One row of the paper's table."""

    label: str
    entries: tuple[EntrySpec, ...]
    """One for each view."""
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
    columns: tuple[ColumnSpec, ...]
    views: tuple[ViewSpec, ...]
    rows: tuple[RowSpec, ...]
    published: str | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("seeds", "columns", "views", "rows"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: a table needs at least one.")
        for row in self.rows:
            if len(row.entries) != len(self.views):
                raise ValueError(
                    f"row {row.label} has {len(row.entries)} entries; wanted one for each of the "
                    f"{len(self.views)} views."
                )
            for entry in row.entries:
                if not entry.trained and entry.cell != entry.base:
                    raise ValueError(
                        f"row {row.label}: {entry.cell} says nothing of the rewards it trained on, as only an "
                        f"untrained cell does, and that is {entry.base}. Set `trained`."
                    )
        shown = Counter(tuple((e.cell, e.p_mix) for e in row.entries) for row in self.rows)
        twice = sorted(entries[0][0] for entries, count in shown.items() if count > 1)
        if twice:
            raise ValueError(
                f"rows show {', '.join(twice)} twice: one row for each cell and p_mix."
            )

    @property
    def score_columns(self) -> tuple[ColumnSpec, ...]:
        """The columns that are rewards."""
        costs = (*NFE_ROLES, *TIMED_ROLES)
        return tuple(column for column in self.columns if column.role not in costs)

    def is_judged(self, column: ColumnSpec) -> bool:
        """Whether more of it is better, as far as the paper says: what it does not print has no best."""
        return self.published is None or column.published_column is not None

    def roles(self, kind: tuple[str, ...]) -> list[str]:
        """The columns whose role is in `kind`: `NFE_ROLES` or `TIMED_ROLES`."""
        return [column.role for column in self.columns if column.role in kind]

    @property
    def rewards(self) -> list[str]:
        """Names of every reward the table needs scores of: its columns, and what its rows trained on."""
        names = [column.name for column in self.score_columns]
        names += [name for row in self.rows for entry in row.entries for name in entry.trained]
        return list(dict.fromkeys(names))


def read_table_spec(path: Path) -> TableSpec:
    """The spec at `path`. UserError names every bad key."""
    return read_json(
        path, TableSpec, remedy=f"`snakemake {path}` writes it from config/tables.yaml"
    )
