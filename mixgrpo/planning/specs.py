"""The JSON that the workflow writes for each stage: all that a job is planned with."""

import json
from dataclasses import asdict
from functools import cache
from typing import Any

from mixgrpo.config import canonical
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.sheets import SWEEP, Figure, Row, Table


@cache
def settings_json(experiment: Experiment, cell: str, seed: int) -> str:
    """runs/{cell}/seed{seed}/settings.json."""
    return canonical(experiment.settings(cell, seed))


@cache
def evaluation_json(experiment: Experiment, cell: str) -> str:
    """images/{cell}/seed{seed}/evaluation.json."""
    sets = [
        {"dataset": dataset, "split": split, "p_mix": p_mix}
        for dataset, split, p_mix in experiment.image_sets(cell)
    ]
    plan = asdict(experiment.evaluation)
    resolutions, shifts = plan.pop("resolutions"), plan.pop("shifts")
    model = experiment.cells[cell].settings.model
    return dump(
        {
            **plan,
            "shift": shifts.get(model.name, plan["shift"]),
            "resolution": resolutions.get(model.name, model.resolution),
            "sets": sets,
        }
    )


def rewards_json(experiment: Experiment) -> str:
    """scores/rewards.json: every reward of the preset by name."""
    return dump(
        {
            sheet.name: {"path": sheet.path, "options": sheet.options}
            for sheet in experiment.sheet.reward_models.values()
        }
    )


def pretrain_json(experiment: Experiment) -> str:
    """models/pretrain.json."""
    return dump(experiment.sheet.pretrain or {})


def overhead_json(experiment: Experiment) -> str:
    """overhead/plan.json."""
    how = experiment.sheet.overhead
    return dump(
        {
            "paths": how.paths,
            "num_positions": how.num_positions,
            "repetitions": how.repetitions,
            "compile": how.compile,
        }
    )


@cache
def table_json(experiment: Experiment, name: str) -> str:
    """tables/{table}.json: mixgrpo/report/table_spec.py says what its keys mean."""
    table = experiment.tables[name]
    published = f"{experiment.config}/published/{table.published}" if table.published else None
    views = [
        {
            "title": view.title,
            "dataset": experiment.sheet.datasets[view.dataset].name,
            "split": table.split,
            "p_mix": table.p_mix,
            "gains_p_mix": table.gains_p_mix,
            "published_prefix": view.published,
        }
        for view in table.test_sets
    ]
    return dump(
        {
            **facts(experiment, table),
            "table": name,
            "kind": "gains" if name == SWEEP else "paper",
            "columns": [column_spec(experiment, role, table) for role in table.columns],
            "views": views,
            "rows": [row_spec(experiment, row, table) for row in table.rows],
            "published": published,
        }
    )


def facts(experiment: Experiment, sheet: Table | Figure) -> dict[str, Any]:
    """What a table and a figure both say of themselves."""
    names = [name for row in sheet.rows for name in row.names]
    trained = [name for name in names if experiment.cells[name].trained]
    return {
        "title": sheet.title,
        "caption": sheet.caption,
        "preset": experiment.preset,
        "scale": experiment.sheet.scale,
        "seeds": sorted({seed for _, seed in experiment.runs(trained)}) or [0],
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
        "group": next((group for group, roles in table.groups.items() if role in roles), None),
    }


def row_spec(experiment: Experiment, row: Row, table: Table) -> dict[str, Any]:
    """One row: an entry for each view."""
    first = experiment.cells[row.names[0]]
    entries = [
        {
            "cell": name,
            "base": experiment.base_of(name),
            "trained": trained_on(experiment, name),
            "p_mix": row.p_mix,
            "metrics": metrics_of(experiment, name) if table.needs_metrics else [],
        }
        for name in (row.names[view.cell] for view in table.test_sets)
    ]
    return {
        "label": row.label,
        "published_row": row.published,
        "group": first.group,
        "value": first.value,
        "entries": entries,
    }


def trained_on(experiment: Experiment, cell: str) -> list[str]:
    """Names of the rewards that a cell trained on; none for an untrained one."""
    entry = experiment.cells[cell]
    return sorted(entry.settings.rewards) if entry.trained else []


def metrics_of(experiment: Experiment, cell: str) -> list[str]:
    """metrics.jsonl of each of its runs."""
    if not experiment.cells[cell].trained:
        return []
    runs = experiment.runs([cell])
    return [f"{experiment.results}/runs/{cell}/seed{seed}/metrics.jsonl" for _, seed in runs]


@cache
def figure_json(experiment: Experiment, name: str) -> str:
    """figures/{figure}.json: what to draw, and the files it is drawn from."""
    figure, results = experiment.figures[name], experiment.results
    first = figure.rows[0].names[0]
    model = experiment.model(first)
    rewards = {sheet.name: role for role, sheet in experiment.sheet.reward_models.items()}

    def path(read: str, place: str) -> str | None:
        return f"{results}/{place}" if read in figure.reads else None

    return dump(
        {
            **facts(experiment, figure),
            "name": name,
            "draw": figure.draw,
            "base": experiment.base_of(first),
            "dataset": experiment.sheet.datasets[figure.dataset].name if figure.dataset else None,
            "split": figure.split,
            "p_mix": figure.p_mix,
            "cells": [figure_cell(experiment, row, figure) for row in figure.rows],
            "num_prompts": figure.num_prompts,
            "prompts": experiment.prompts(figure.dataset, figure.split),
            "scores": path("scores", "scores"),
            "overhead": path("overhead", f"overhead/{model}.json"),
            "spread": path("spread", f"spread/{model}.json"),
            "rewards": {name: experiment.columns[role].header for name, role in rewards.items()},
        }
    )


def figure_cell(experiment: Experiment, row: Row, figure: Figure) -> dict[str, Any]:
    """One row or curve: its files, as far as the figure reads them."""
    name, results = row.names[0], experiment.results
    cell = experiment.cells[name]
    p_mix = figure.p_mix if row.p_mix is None else row.p_mix
    entry: dict[str, Any] = {
        "cell": name,
        "label": row.label,
        "seeds": cell.seeds,
        "trained": trained_on(experiment, name),
        "p_mix": p_mix if cell.trained or p_mix is None else 0.0,
    }
    if "images" in figure.reads:
        entry["images"] = f"{results}/images/{name}/seed{cell.seeds[0]}/index.json"
    if "metrics" in figure.reads:
        entry["metrics"] = metrics_of(experiment, name)
    if "settings" in figure.reads:
        entry["settings"] = f"{results}/runs/{name}/seed{cell.seeds[0]}/settings.json"
    return entry


def figure_files(experiment: Experiment, name: str) -> list[str]:
    """What the stage reads beside the spec."""
    spec = json.loads(figure_json(experiment, name))
    files = [file for cell in spec["cells"] for file in cell.get("metrics", [])]
    files += [cell[key] for cell in spec["cells"] for key in ("images", "settings") if key in cell]
    files += [spec[key] for key in ("overhead", "spread") if spec[key] is not None]
    if spec["scores"] is not None:
        runs = experiment.runs(experiment.cells_of_figure(name))
        files += [f"{spec['scores']}/{cell}/seed{seed}/index.json" for cell, seed in runs]
    if "images" in experiment.figures[name].reads:
        files.append(spec["prompts"])
    return list(dict.fromkeys(files))


def dump(value: Any) -> str:
    """One line of JSON with sorted keys: it changes exactly when a value does."""
    return json.dumps(value, sort_keys=True)
