"""What the sheets in config/ say of one another: every name that one uses, another must define."""

import ast
import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mixgrpo.config import canonical
from mixgrpo.planning.checking import Findings, unknown, unknown_key
from mixgrpo.planning.experiment import Cell
from mixgrpo.planning.sheets import (
    METRIC_ROLES,
    SWEEP,
    TIMED_ROLES,
    Column,
    Figure,
    PresetSheet,
    Table,
)
from mixgrpo.provenance import ROOT, keys_of, modules_in, options_of, parse


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
    if all(name in cells for name in named):
        check_bases(findings, f"{folder.name}/cells.yaml", cells)
    check_training_prompts(findings, f"{folder.name}/cells.yaml", sheet, cells)
    check_roles(findings, folder.name, sheet, shown.columns)
    check_files(findings, folder, sheet)
    for name in sheet.overhead.tables:
        if name not in shown.tables:
            message = unknown(name, shown.tables)
            findings.add(f"{folder.name}/presets", "overhead.tables", message)
    for name, table in shown.tables.items():
        file, prefix = f"{folder.name}/tables.yaml", f"tables.{name}."
        if name == SWEEP:
            file, prefix = f"{folder.name}/sweep.yaml", ""
        else:
            check_rows(findings, file, prefix, table, named)
        for view in table.test_sets:
            key = f"{prefix}views" if table.views else f"{prefix}dataset"
            check_prompts(findings, file, key, view.dataset, table.split, sheet)
        check_columns(findings, file, prefix, table, sheet, shown.columns)
        check_timed(findings, file, prefix, table, cells)
        if table.published is not None:
            check_published(findings, folder, file, prefix, table, shown.columns)
    for name, figure in shown.figures.items():
        check_figure(findings, f"{folder.name}/figures.yaml", name, figure, sheet, cells, named)


def check_figure(
    findings: Findings,
    file: str,
    name: str,
    figure: Figure,
    sheet: PresetSheet,
    cells: Mapping[str, Cell],
    named: Collection[str],
) -> None:
    """It can be drawn, its cells are there, and were trained where training is shown."""
    check_rows(findings, file, f"{name}.", figure, named)
    if figure.dataset is not None:
        check_prompts(findings, file, f"{name}.dataset", figure.dataset, figure.split, sheet)
    if figure.draw not in drawers():
        findings.add(file, f"{name}.draw", unknown(figure.draw, drawers()))
    shown = [cells[row.names[0]] for row in figure.rows if row.names[0] in cells]
    models = {cell.settings.model.name for cell in shown}
    for read in figure.reads:
        for row in figure.rows if read in ("metrics", "settings") else ():
            cell = row.names[0]
            if cell in cells and not cells[cell].trained:
                message = f"{row.label!r}: {cell!r} is not trained: it has no {read} to draw."
                findings.add(file, f"{name}.rows", message)
        if read in ("overhead", "spread") and len(models) > 1:
            message = (
                f"{read} is measured for one model, but the rows have {', '.join(sorted(models))}."
            )
            findings.add(file, f"{name}.rows", message)
        trained = len(shown) < len(figure.rows) or any(cell.trained for cell in shown)
        if read in ("overhead", "spread") and not trained:
            findings.add(
                file, f"{name}.rows", f"{read} is measured of trained cells; there is none."
            )


@cache
def drawers() -> list[str]:
    """Files of mixgrpo/report/ that define `draw`."""
    bodies = {name: parse(f"mixgrpo.report.{name}", ROOT).body for name in modules_in("report")}
    return [
        name
        for name, body in bodies.items()
        if any(isinstance(part, ast.FunctionDef) and part.name == "draw" for part in body)
    ]


def check_rows(
    findings: Findings, file: str, prefix: str, shown: Table | Figure, named: Collection[str]
) -> None:
    """Every row shows cells that there are."""
    for row in shown.rows:
        for name in row.names:
            if name not in named:
                findings.add(file, f"{prefix}rows", f"{row.label!r}: {unknown(name, named)}")


def check_prompts(
    findings: Findings,
    file: str,
    key: str,
    dataset: str,
    split: str | None,
    sheet: PresetSheet,
) -> None:
    """The preset has the dataset and its split."""
    if dataset not in sheet.datasets:
        findings.add(file, key, unknown(dataset, sheet.datasets))
    elif split not in sheet.datasets[dataset].splits:
        splits = sheet.datasets[dataset].splits
        findings.add(file, key, f"{dataset} has no such split. {unknown(split, splits)}")


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
        elif role not in (*sheet.reward_models, *METRIC_ROLES, *TIMED_ROLES):
            fillers = [*sheet.reward_models, *METRIC_ROLES, *TIMED_ROLES]
            findings.add(file, f"{prefix}columns", unknown(role, fillers))


def check_timed(
    findings: Findings, file: str, prefix: str, table: Table, cells: Mapping[str, Cell]
) -> None:
    """Times are compared within one model."""
    names = [name for row in table.rows for name in row.names if name in cells]
    models = {cells[name].settings.model.name for name in names}
    if table.needs_overhead and len(models) > 1:
        message = f"times are of one model, but the rows have {', '.join(sorted(models))}."
        findings.add(file, f"{prefix}columns", message)


def check_equal_cells(findings: Findings, file: str, cells: Mapping[str, Cell]) -> None:
    """Two cells with equal settings would train the same model twice."""
    seen: dict[tuple[str, int], str] = {}
    for name, cell in cells.items():
        for seed in cell.seeds if cell.trained else ():
            other = seen.setdefault((canonical(cell.settings), seed), name)
            if other != name:
                message = f"has the same settings as {other}. Show that cell instead, or change a setting."
                findings.add(file, name, message)


def check_bases(findings: Findings, file: str, cells: Mapping[str, Cell]) -> None:
    """Every model has one untrained cell, which the gains of its cells are over."""
    bases: dict[str, str] = {}
    for name, cell in cells.items():
        if not cell.trained:
            other = bases.setdefault(cell.settings.model.name, name)
            if other != name:
                findings.add(file, name, f"is the same untrained model as {other}. Show that cell.")
    for name, cell in cells.items():
        model = cell.settings.model.name
        if cell.trained and cell.group is None and model not in bases:
            message = f"the model {model!r} has no untrained cell (`trained: false`, `model: ...`)"
            findings.add(file, "cells", f"{message} to measure gains over. Add one.", seen_in=name)


def check_training_prompts(
    findings: Findings, file: str, sheet: PresetSheet, cells: Mapping[str, Cell]
) -> None:
    """There are prompts to train on."""
    splits = {dataset.name: dataset.splits for dataset in sheet.datasets.values()}
    for name, cell in cells.items():
        if cell.trained and "train" not in splits[cell.settings.dataset]:
            message = f"{cell.settings.dataset} has no split `train` to train on. Give it one in the preset."
            findings.add(file, "dataset", message, seen_in=name)


def check_roles(
    findings: Findings, folder: str, sheet: PresetSheet, columns: Mapping[str, Column]
) -> None:
    """What plays a role plays no other, for results are kept by its name; each reward has a column."""
    blocks: dict[str, Mapping[str, Any]] = {
        "models": sheet.models,
        "reward_models": sheet.reward_models,
        "datasets": sheet.datasets,
    }
    for block, roles in blocks.items():
        players: dict[str, str] = {}
        for role, player in roles.items():
            other = players.setdefault(player.name, role)
            if other != role:
                message = f"{player.name} plays {other} already."
                findings.add(f"{folder}/presets", f"{block}.{role}", message)
    for role in sheet.reward_models:
        if role not in columns:
            message = f"no column for the reward {role!r}. Add one."
            findings.add(f"{folder}/tables.yaml", "columns", message)


def check_files(findings: Findings, folder: Path, sheet: PresetSheet) -> None:
    """What plays a role is a file of the package, or a name that a stage knows; prompt files are there."""
    file = f"{folder.name}/presets"
    own = {role: dataset for role, dataset in sheet.datasets.items() if dataset.files}
    for role, dataset in own.items():
        for split, path in dataset.files.items():
            if not (folder.parent / path).is_file():
                findings.add(file, f"datasets.{role}.files.{split}", f"there is no file {path}.")
    known: dict[str, tuple[Mapping[str, Any], list[str]]] = {
        "models": (sheet.models, modules_in("models")),
        "reward_models": (sheet.reward_models, modules_in("rewards")),
        "datasets": (sheet.datasets, keys_of("mixgrpo.stages.prompts", "SOURCES")),
    }
    for block, (players, names) in known.items():
        for role, player in players.items():
            if player.name not in names and not (block == "datasets" and role in own):
                findings.add(file, f"{block}.{role}.name", unknown(player.name, names))
    check_rewards(findings, folder, sheet)


def check_rewards(findings: Findings, folder: Path, sheet: PresetSheet) -> None:
    """A reward's weights are there, unless the workflow makes them, and its options are those of its file."""
    for role, reward in sheet.reward_models.items():
        file, key = f"{folder.name}/presets", f"reward_models.{role}"
        made = reward.path is None or reward.path.startswith("results/")
        if not made and not (folder.parent / str(reward.path)).exists():
            message = (
                f"there is nothing at {reward.path}. Put the weights there, or set it to null: then the reward "
                "fetches its own, or is asked of the server that MIXGRPO_REWARDS names."
            )
            findings.add(file, f"{key}.path", message)
        if reward.name in modules_in("rewards"):
            options = options_of(reward.name)
            for option in sorted(reward.options.keys() - set(options)):
                findings.add(file, f"{key}.options.{option}", unknown_key(option, options))


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
                f"{row.label!r}: no row {row.published} in {path.name}; it has {len(rows)}, from 0."
            )
            findings.add(file, f"{prefix}rows", message)
    for role in table.columns:
        column = columns[role].published if role in columns else None
        if column is None:
            continue
        for view in table.test_sets:
            wanted = f"{view.published}{column}"
            if wanted not in header:
                message = f"{role}: {path.name} has no such column. {unknown(wanted, header)}"
                findings.add(file, f"{prefix}columns", message)
