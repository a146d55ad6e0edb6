"""What the sheets in config/ say of one another: every name that one uses, another must define."""

import csv
from collections.abc import Mapping
from pathlib import Path

from mixgrpo.config import canonical
from mixgrpo.planning.checking import Findings, unknown
from mixgrpo.planning.plan import BASE, Cell
from mixgrpo.planning.sheets import OVERHEAD_ROLES, Column, Figure, PresetSheet, Table


def crosscheck(
    findings: Findings,
    folder: Path,
    sheet: PresetSheet,
    cells: Mapping[str, Cell],
    tables: Mapping[str, Table],
    figures: Mapping[str, Figure],
    columns: Mapping[str, Column],
) -> None:
    """Add what does not hold to `findings`."""
    check_equal_cells(findings, f"{folder.name}/cells.yaml", cells)
    check_roles(findings, folder.name, sheet, columns)
    for name, table in tables.items():
        file, prefix = (f"{folder.name}/tables.yaml", f"tables.{name}.")
        if name == "sweep":
            file, prefix = f"{folder.name}/sweep.yaml", ""
        check_references(findings, file, prefix, table, sheet, cells)
        for role in table.columns:
            if role not in columns:
                findings.add(file, f"{prefix}columns", unknown(role, columns))
            elif role not in OVERHEAD_ROLES and role not in sheet.reward_models:
                findings.add(
                    file, f"{prefix}columns", unknown(role, [*sheet.reward_models, *OVERHEAD_ROLES])
                )
        if table.kind == "gains" and (BASE not in cells or cells[BASE].trained):
            findings.add(
                file, f"{prefix}kind", f"gains are over the cell {BASE!r}, which must be untrained."
            )
        if table.published is not None:
            check_published(findings, folder, file, prefix, table, columns)
    for name, figure in figures.items():
        check_references(findings, f"{folder.name}/figures.yaml", f"{name}.", figure, sheet, cells)


def check_references(
    findings: Findings,
    file: str,
    prefix: str,
    shown: Table | Figure,
    sheet: PresetSheet,
    cells: Mapping[str, Cell],
) -> None:
    """Cells, dataset and split of a table or figure exist."""
    for row in shown.rows:
        if row.cell not in cells and not file.endswith("sweep.yaml"):
            findings.add(
                file, f"{prefix}rows", unknown(row.cell, (c for c in cells if not cells[c].group))
            )
        elif isinstance(shown, Figure) and shown.draws == "metrics" and not cells[row.cell].trained:
            findings.add(
                file, f"{prefix}rows", f"{row.cell!r} is not trained: it has no metrics to draw."
            )
    if shown.dataset is None:
        return
    if shown.dataset not in sheet.datasets:
        findings.add(file, f"{prefix}dataset", unknown(shown.dataset, sheet.datasets))
    elif shown.split not in sheet.datasets[shown.dataset].splits:
        splits = sheet.datasets[shown.dataset].splits
        findings.add(
            file, f"{prefix}split", f"{shown.dataset} has none. {unknown(shown.split, splits)}"
        )


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
            findings.add(
                f"{folder}/presets",
                f"reward_models.{role}",
                f"{reward.name} plays {other} already.",
            )
        if role not in columns:
            findings.add(
                f"{folder}/tables.yaml", "columns", f"no column for the reward {role!r}. Add one."
            )


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
        header, *rows = csv.reader(lines)
    for row in table.rows:
        if row.published is not None and not 0 <= row.published < len(rows):
            message = (
                f"{row.cell}: no row {row.published} in {path.name}, which has {len(rows)}, from 0."
            )
            findings.add(file, f"{prefix}rows", message)
    for role in table.columns:
        wanted = columns[role].published if role in columns else None
        if wanted is not None and wanted not in header:
            findings.add(
                file, f"{prefix}columns", f"{role}: {path.name} has none. {unknown(wanted, header)}"
            )
