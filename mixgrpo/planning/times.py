"""How long a job takes: as it was measured here, else as the preset has it."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixgrpo.planning.experiment import Experiment

Jobs = Sequence[tuple[str, Mapping[str, str]]]
"""(rule, wildcards) of jobs."""
KEYS = ("component", "cell", "table", "figure", "dataset", "model")
"""Wildcards that name what a job works on."""


def job_seconds(experiment: Experiment, rule: str, wildcards: Mapping[str, str]) -> float:
    """Of one job, 0 where nobody knows."""
    return known_seconds(experiment, rule, wildcards) or 0.0


def known_seconds(experiment: Experiment, rule: str, wildcards: Mapping[str, str]) -> float | None:
    """Of one job: as it was measured here, else as the preset has it; a cell of a sweep costs what its cell does."""
    measured = measured_seconds(experiment, rule, wildcards)
    if measured is not None:
        return measured
    name = next((wildcards[key] for key in KEYS if key in wildcards), "")
    if name in experiment.cells:
        name = experiment.cells[name].group or name
    seconds = experiment.sheet.seconds
    known = (seconds[key] for key in (f"{rule} {name}", rule) if key in seconds)
    return next(known, None)


def measured_seconds(
    experiment: Experiment, rule: str, wildcards: Mapping[str, str]
) -> float | None:
    """Median of what Snakemake measured of this job at any seed; None when it never ran to its end."""
    folder = Path(experiment.results) / "benchmarks"
    if rule in ("train", "generate", "score"):
        files = sorted((folder / rule / wildcards["cell"]).glob("seed*.tsv"))
    else:
        name = next((wildcards[key] for key in KEYS if key in wildcards), rule)
        files = [folder / rule.partition("_")[0] / f"{name}.tsv"]
    seconds = [time for file in files if (time := read_benchmark(file)) is not None]
    return statistics.median(seconds) if seconds else None


def read_benchmark(path: Path) -> float | None:
    """Wall seconds in a benchmark file of Snakemake; None when it is not there or not whole."""
    try:
        header, row = path.read_text().splitlines()[:2]
        return float(dict(zip(header.split("\t"), row.split("\t"), strict=False))["s"])
    except (OSError, ValueError, KeyError):
        return None
