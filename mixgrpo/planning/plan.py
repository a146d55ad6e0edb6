"""The resolved experiment, and the JSON that the workflow hands to each stage.

`mixgrpo.planning.experiment.load` builds it from config/. Torch-free and without side effects.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from mixgrpo.config import Settings, canonical
from mixgrpo.planning.sheets import Column, EvaluationSheet, Figure, PresetSheet, Row, Table
from mixgrpo.provenance import digest, stage_modules

BASE = "base"
"""The untrained cell, which gains are measured against."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model that tables and figures show."""

    settings: Settings
    """With seed 0 and no code; `Experiment.settings` has those of one run."""
    trained: bool
    seeds: tuple[int, ...]
    group: str | None = None
    """In a sweep: the cell that a value was tried in."""
    value: float | None = None
    """In a sweep: that value."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything the workflow plans by."""

    preset: str
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    tables: dict[str, Table]
    """Those of tables.yaml, and `sweep`."""
    figures: dict[str, Figure]
    columns: dict[str, Column]
    sheet: PresetSheet
    evaluation: EvaluationSheet
    config: str
    """Folder of the configuration."""

    @property
    def results(self) -> str:
        """Folder of everything this preset makes."""
        return f"results/{self.preset}"

    def prompts(self, role: str | None, split: str | None) -> str | None:
        """Prompts file of the dataset that plays `role`."""
        if role is None:
            return None
        return f"{self.results}/prompts/{self.sheet.datasets[role].name}_{split}.tsv"

    def settings(self, cell: str, seed: int) -> Settings:
        """Of one run, with the digest of the code that it is planned with; the base runs no training code."""
        entry = self.cells[cell]
        modules = stage_modules(
            "train", models=[entry.settings.model.name], rewards=entry.settings.rewards
        )
        return replace(entry.settings, seed=seed, code=digest(*modules) if entry.trained else "")

    def cells_of_table(self, table: str) -> list[str]:
        """Cells whose scores a table needs, the base among them where gains are measured against it."""
        sheet = self.tables[table]
        names = [row.cell for row in sheet.rows]
        return list(dict.fromkeys([BASE, *names] if sheet.kind == "gains" else names))

    def runs(self, cells: Iterable[str]) -> list[tuple[str, int]]:
        """(cell, seed) of every run of `cells`."""
        return [(cell, seed) for cell in cells for seed in self.cells[cell].seeds]

    def image_sets(self, cell: str) -> list[tuple[str, str, float]]:
        """(dataset, split, p_mix) that the tables and figures with this cell ask for; the base's p_mix is 0."""
        sheets: list[Table | Figure] = [
            sheet for name, sheet in self.tables.items() if cell in self.cells_of_table(name)
        ]
        sheets += [
            figure
            for figure in self.figures.values()
            if figure.draws == "images" and cell in [row.cell for row in figure.rows]
        ]
        sets = set()
        for sheet in sheets:
            assert sheet.dataset is not None
            assert sheet.p_mix is not None
            dataset = self.sheet.datasets[sheet.dataset].name
            sets.add((dataset, str(sheet.split), sheet.p_mix if self.cells[cell].trained else 0.0))
        return sorted(sets)


def settings_json(experiment: Experiment, cell: str, seed: int) -> str:
    """runs/{cell}/seed{seed}/settings.json."""
    return canonical(experiment.settings(cell, seed))


def evaluation_json(experiment: Experiment, cell: str) -> str:
    """images/{cell}/seed{seed}/evaluation.json."""
    sets = [
        {"dataset": dataset, "split": split, "p_mix": p_mix}
        for dataset, split, p_mix in experiment.image_sets(cell)
    ]
    return dump({**asdict(experiment.evaluation), "sets": sets})


def rewards_json(experiment: Experiment) -> str:
    """scores/rewards.json: every reward of the preset by name."""
    return dump(
        {sheet.name: {"path": sheet.path} for sheet in experiment.sheet.reward_models.values()}
    )


def pretrain_json(experiment: Experiment) -> str:
    """models/pretrain.json."""
    return dump(experiment.sheet.pretrain or {})


def table_json(experiment: Experiment, name: str) -> str:
    """tables/{table}.json: mixgrpo/report/table_spec.py says what its keys mean."""
    table = experiment.tables[name]
    published = f"{experiment.config}/published/{table.published}" if table.published else None
    return dump(
        {
            **facts(experiment, table),
            "table": name,
            "kind": table.kind,
            "columns": [column_spec(experiment, role, table) for role in table.columns],
            "rows": [row_spec(experiment, row) for row in table.rows],
            "published": published,
        }
    )


def facts(experiment: Experiment, sheet: Table | Figure) -> dict[str, Any]:
    """What a table and a figure both say of themselves."""
    trained = [row.cell for row in sheet.rows if experiment.cells[row.cell].trained]
    return {
        "title": sheet.title,
        "caption": sheet.caption,
        "preset": experiment.preset,
        "scale": experiment.sheet.scale,
        "seeds": sorted({seed for _, seed in experiment.runs(trained)}) or [0],
        "dataset": experiment.sheet.datasets[sheet.dataset].name if sheet.dataset else None,
        "split": sheet.split,
        "p_mix": sheet.p_mix,
    }


def column_spec(experiment: Experiment, role: str, table: Table) -> dict[str, Any]:
    """One column; `name` is the reward that plays the role."""
    column, reward = experiment.columns[role], experiment.sheet.reward_models.get(role)
    return {
        "role": role,
        "name": reward.name if reward else role,
        "header": column.header,
        "digits": column.digits,
        "published_column": column.published if table.published else None,
    }


def row_spec(experiment: Experiment, row: Row) -> dict[str, Any]:
    """One row."""
    cell = experiment.cells[row.cell]
    return {
        "cell": row.cell,
        "label": row.label,
        "trained": sorted(cell.settings.rewards) if cell.trained else [],
        "published_row": row.published,
        "group": cell.group,
        "value": cell.value,
    }


def figure_json(experiment: Experiment, name: str) -> str:
    """figures/{figure}.json: what to draw, and the files it is drawn from."""
    figure, results = experiment.figures[name], experiment.results
    cells = []
    for row in figure.rows:
        seeds = experiment.cells[row.cell].seeds
        entry: dict[str, Any] = {"cell": row.cell, "label": row.label, "seeds": seeds}
        if figure.draws == "images":
            entry["images"] = f"{results}/images/{row.cell}/seed{seeds[0]}/index.json"
            entry["p_mix"] = figure.p_mix if experiment.cells[row.cell].trained else 0.0
        else:
            entry["metrics"] = [
                f"{results}/runs/{row.cell}/seed{seed}/metrics.jsonl" for seed in seeds
            ]
        cells.append(entry)
    rewards = {sheet.name: role for role, sheet in experiment.sheet.reward_models.items()}
    return dump(
        {
            **facts(experiment, figure),
            "name": name,
            "cells": cells,
            "num_prompts": figure.num_prompts,
            "prompts": experiment.prompts(figure.dataset, figure.split),
            "rewards": {name: experiment.columns[role].header for name, role in rewards.items()},
        }
    )


def figure_files(experiment: Experiment, name: str) -> list[str]:
    """What the stage reads beside the spec."""
    spec = json.loads(figure_json(experiment, name))
    files = [file for cell in spec["cells"] for file in cell.get("metrics", [])]
    files += [cell["images"] for cell in spec["cells"] if "images" in cell]
    return files + ([spec["prompts"]] if spec["prompts"] else [])


def dump(value: Any) -> str:
    """One line of JSON with sorted keys: it changes exactly when a value does."""
    return json.dumps(value, sort_keys=True)
