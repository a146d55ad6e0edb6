"""What the sheets in config/ say of one another: every name that one uses, another must define."""

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixgrpo.config import BASE_CELL, canonical
from mixgrpo.planning.checking import Findings, unknown
from mixgrpo.planning.experiment import Cell
from mixgrpo.planning.sheets import OVERHEAD_ROLES, Column, Figure, PresetSheet, Table
from mixgrpo.provenance import keys_of, modules_in


@dataclass(frozen=True)
class Shown:
    """What is made for people to look at."""

    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]
    columns: Mapping[str, Column]


def crosscheck(
    findings: Findings,
    folder: Path,
    sheet: PresetSheet,
    cells: Mapping[str, Cell],
    shown: Shown,
    *,
    named: Collection[str],
) -> None:
    """Add what does not hold to `findings`. cells: those whose settings hold, of all that are `named`."""
    check_equal_cells(findings, f"{folder.name}/cells.yaml", cells)
    check_roles(findings, folder.name, sheet, shown.columns)
    check_files(findings, f"{folder.name}/presets", sheet)
    trained = {name for name, cell in cells.items() if cell.trained}
    for name, table in shown.tables.items():
        file, prefix = f"{folder.name}/tables.yaml", f"tables.{name}."
        if name == "sweep":
            file, prefix = f"{folder.name}/sweep.yaml", ""
        else:
            check_rows(findings, file, prefix, table, named)
        check_prompts(findings, file, prefix, table, sheet)
        check_columns(findings, file, prefix, table, sheet, shown.columns)
        if table.kind == "gains" and (BASE_CELL not in named or BASE_CELL in trained):
            message = f"gains are over the cell {BASE_CELL!r}, which must be there and untrained."
            findings.add(file, f"{prefix}kind", message)
        if table.published is not None:
            check_published(findings, folder, file, prefix, table, shown.columns)
    for name, figure in shown.figures.items():
        file, prefix = f"{folder.name}/figures.yaml", f"{name}."
        check_rows(findings, file, prefix, figure, named)
        check_prompts(findings, file, prefix, figure, sheet)
        if name not in modules_in("report"):
            findings.add(file, name, f"there is no mixgrpo/report/{name}.py to draw it.")
        for row in figure.rows:
            if figure.draws == "metrics" and row.cell in cells and row.cell not in trained:
                message = f"{row.cell!r} is not trained: it has no metrics to draw."
                findings.add(file, f"{prefix}rows", message)


def check_rows(
    findings: Findings, file: str, prefix: str, shown: Table | Figure, named: Collection[str]
) -> None:
    """Every row shows a cell that there is."""
    for row in shown.rows:
        if row.cell not in named:
            findings.add(file, f"{prefix}rows", unknown(row.cell, named))


def check_prompts(
    findings: Findings, file: str, prefix: str, shown: Table | Figure, sheet: PresetSheet
) -> None:
    """The preset has the dataset and its split."""
    if shown.dataset is None:
        return
    if shown.dataset not in sheet.datasets:
        findings.add(file, f"{prefix}dataset", unknown(shown.dataset, sheet.datasets))
        return
    splits = sheet.datasets[shown.dataset].splits
    if shown.split not in splits:
        message = f"{shown.dataset} has no such split. {unknown(shown.split, splits)}"
        findings.add(file, f"{prefix}split", message)


def check_columns(
    findings: Findings,
    file: str,
    prefix: str,
    table: Table,
    sheet: PresetSheet,
    columns: Mapping[str, Column],
) -> None:
    """Every column is described, and filled by a reward of the preset or by the overhead stage."""
    for role in table.columns:
        if role not in columns:
            findings.add(file, f"{prefix}columns", unknown(role, columns))
        elif role not in OVERHEAD_ROLES and role not in sheet.reward_models:
            fillers = [*sheet.reward_models, *OVERHEAD_ROLES]
            findings.add(file, f"{prefix}columns", unknown(role, fillers))


def check_equal_cells(findings: Findings, file: str, cells: Mapping[str, Cell]) -> None:
    """Two cells with equal settings would train the same model twice."""
    seen: dict[tuple[str, int], str] = {}
    for name, cell in cells.items():
        for seed in cell.seeds if cell.trained else ():
            other = seen.setdefault((canonical(cell.settings), seed), name)
            if other != name:
                message = f"has the same settings as {other}. Show that cell instead, or change a setting."
                findings.add(file, name, message)


def check_roles(
    findings: Findings, folder: str, sheet: PresetSheet, columns: Mapping[str, Column]
) -> None:
    """Each reward has one role, and a column that says how it is printed."""
    players: dict[str, str] = {}
    for role, reward in sheet.reward_models.items():
        other = players.setdefault(reward.name, role)
        if other != role:
            message = f"{reward.name} plays {other} already."
            findings.add(f"{folder}/presets", f"reward_models.{role}", message)
        if role not in columns:
            message = f"no column for the reward {role!r}. Add one."
            findings.add(f"{folder}/tables.yaml", "columns", message)


def check_files(findings: Findings, file: str, sheet: PresetSheet) -> None:
    """What plays a role is a file of the package, or a name that a stage knows."""
    known: dict[str, tuple[Mapping[str, Any], list[str]]] = {
        "models": (sheet.models, modules_in("models")),
        "reward_models": (sheet.reward_models, modules_in("rewards")),
        "datasets": (sheet.datasets, keys_of("mixgrpo.stages.prompts", "SOURCES")),
    }
    for block, (players, names) in known.items():
        for role, player in players.items():
            if player.name not in names:
                findings.add(file, f"{block}.{role}.name", unknown(player.name, names))


def check_published(
    findings: Findings,
    folder: Path,
    file: str,
    prefix: str,
    table: Table,
    columns: Mapping[str, Column],
) -> None:
    """The csv of published values has the rows and columns that the table shows."""
    path = folder / "published" / str(table.published)
    if not path.is_file():
        known = [found.name for found in path.parent.glob("*.csv")]
        findings.add(file, f"{prefix}published", unknown(table.published, known))
        return
    with path.open(newline="") as lines:
        header, *rows = list(csv.reader(lines)) or [[]]
    for row in table.rows:
        if row.published is not None and not 0 <= row.published < len(rows):
            message = (
                f"{row.cell}: no row {row.published} in {path.name}; it has {len(rows)}, from 0."
            )
            findings.add(file, f"{prefix}rows", message)
    for role in table.columns:
        wanted = columns[role].published if role in columns else None
        if wanted is not None and wanted not in header:
            message = f"{role}: {path.name} has no such column. {unknown(wanted, header)}"
            findings.add(file, f"{prefix}columns", message)
