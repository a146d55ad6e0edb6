"""metrics.jsonl of a run as a DataFrame."""

import json
from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.inputs import read_text

REWARD = "reward/"
"""Prefix of the columns that hold the mean of a reward."""


def read_metrics(path: Path) -> pd.DataFrame:
    """One row an iteration, index the iteration from 0. UserError unless every iteration is there, whole."""
    remedy = f"`snakemake {path}` trains this run, from its last checkpoint if it has one"
    rows = []
    for i, line in enumerate(read_text(path, remedy=remedy).splitlines()):
        try:
            rows.append(json.loads(line))
            iteration = rows[-1]["iteration"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {i + 1}: not the metrics of an iteration ({error!r}). Delete it; {remedy}."
            ) from None
        if iteration != i:
            raise UserError(
                f"{path}, line {i + 1}: iteration {iteration}, wanted {i}. Delete it; {remedy}."
            )
    if not rows:
        raise UserError(f"{path}: empty. Delete it; {remedy}.")
    metrics = pd.DataFrame(rows).set_index("iteration")
    _check_rewards(metrics, path, remedy)
    return metrics


def reward_names(metrics: pd.DataFrame) -> list[str]:
    """The rewards that the run was trained on."""
    return [name.removeprefix(REWARD) for name in metrics.columns if name.startswith(REWARD)]


def _check_rewards(metrics: pd.DataFrame, path: Path, remedy: str) -> None:
    if not reward_names(metrics):
        raise UserError(f"{path}: no {REWARD}... in it. Delete it; {remedy}.")
    for name in reward_names(metrics):
        values = pd.to_numeric(metrics[REWARD + name], errors="coerce")
        bad = metrics.index[~(values.abs() < float("inf"))]
        if len(bad):
            raise UserError(
                f"{path}: {REWARD}{name} of iteration {bad[0]} is {metrics[REWARD + name][bad[0]]!r}; wanted "
                f"a finite number. Delete it; {remedy}."
            )
