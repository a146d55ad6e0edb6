"""Means and their standard errors, over prompts and over training seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts; its standard error is None when there is one prompt only."""

    mean: float
    error: float | None
    num_prompts: int


@dataclass(frozen=True)
class Summary:
    """A quantity of one cell: per training seed, and over the seeds."""

    per_seed: dict[int, Estimate]
    mean: float
    """Mean over seeds of the means over prompts."""
    prompt_error: float | None
    """Standard error over prompts, of each prompt's mean over seeds."""
    seed_error: float | None
    """Standard error over seeds, of each seed's mean over prompts; None with one seed."""

    @property
    def error(self) -> float | None:
        """Over seeds if there is more than one, else over prompts."""
        return self.seed_error if len(self.per_seed) > 1 else self.prompt_error


def standard_error(values: pd.Series) -> float | None:
    """sd / sqrt(n), sd with n - 1; None for one value, which has no spread.

    >>> standard_error(pd.Series([1.0, 2.0, 3.0])) == 1 / math.sqrt(3)
    True
    """
    if len(values) < 2:
        return None
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def summarise(values: Mapping[int, pd.Series]) -> Summary:
    """`values`: seed -> one value per image (N,), all with the same index (prompt_id, noise_seed)."""
    per_seed = {
        seed: Estimate(float(series.mean()), standard_error(series), len(series))
        for seed, series in values.items()
    }
    means = pd.Series([estimate.mean for estimate in per_seed.values()])
    prompts = pd.concat(list(values.values()), axis=1).mean(axis=1)
    return Summary(per_seed, float(means.mean()), standard_error(prompts), standard_error(means))
