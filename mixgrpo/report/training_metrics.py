"""metrics.jsonl of a run as a DataFrame."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

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
    _check_numbers(metrics, reward_columns(metrics), path, remedy)
    return metrics


def reward_columns(metrics: pd.DataFrame) -> list[str]:
    """The columns that hold the mean of a reward."""
    return [name for name in metrics.columns if name.startswith(REWARD)]


def reward_names(metrics: pd.DataFrame) -> list[str]:
    """The rewards that the run was trained on."""
    return [name.removeprefix(REWARD) for name in reward_columns(metrics)]


def mean_of_runs(paths: Sequence[Path], name: str) -> float:
    """Mean of the metric `name` over the iterations of each run, and then over the runs."""
    means = []
    for path in paths:
        metrics = read_metrics(path)
        if name not in metrics:
            raise UserError(
                f"{path}: no {name} in it, which this version of training writes. Delete it; `snakemake "
                f"{path}` trains this run again."
            )
        _check_numbers(metrics, [name], path, f"`snakemake {path}` trains this run again")
        means.append(float(metrics[name].mean()))
    return fmean(means)


def _check_numbers(metrics: pd.DataFrame, names: Sequence[str], path: Path, remedy: str) -> None:
    for name in names:
        values = pd.to_numeric(metrics[name], errors="coerce")
        bad = metrics.index[~(values.abs() < float("inf"))]
        if len(bad):
            raise UserError(
                f"{path}: {name} of iteration {bad[0]} is {metrics[name][bad[0]]!r}; wanted a finite number. "
                f"Delete it; {remedy}."
            )
