"""The JSON that the workflow writes for each stage: all that a job is planned with."""

import json
from dataclasses import asdict
from typing import Any

from mixgrpo.config import canonical
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.sheets import Figure, Row, Table


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
