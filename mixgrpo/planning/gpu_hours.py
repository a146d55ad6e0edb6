"""What a preset that needs GPUs costs, before it starts: GPU-hours of what is to be done, and of each table.

By recorded times alone; a job whose time nobody knows is named, not guessed.
"""

from collections.abc import Iterable

from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.sheets import SWEEP
from mixgrpo.planning.times import Jobs, known_seconds

COSTLY = ("embed", "train", "generate", "score", "overhead", "spread")
"""Rules that may run on GPUs."""


def needs_gpus(experiment: Experiment) -> bool:
    """Whether any job of the preset asks for a GPU."""
    return any(job.gpu for job in experiment.sheet.jobs.values())


def gpu_hours(experiment: Experiment, jobs: Jobs) -> tuple[float, int, int]:
    """Of `jobs`: the GPU-hours that are known, how many jobs they are, and of how many more nobody knows the time."""
    hours, known, unknown = 0.0, 0, 0
    for rule, wildcards in jobs:
        gpus = experiment.job(rule, wildcards).gpu
        if rule not in COSTLY or not gpus:
            continue
        seconds = known_seconds(experiment, rule, wildcards)
        known, unknown = known + (seconds is not None), unknown + (seconds is None)
        hours += gpus * (seconds or 0.0) / 3600
    return hours, known, unknown


def gpu_lines(experiment: Experiment, jobs: Jobs) -> list[str]:
    """What is to be done, in GPU-hours."""
    hours, known, unknown = gpu_hours(experiment, jobs)
    if not known + unknown:
        return []
    lines = [f"This takes about {hours:,.0f} GPU-hours for {known} jobs, judged by recorded times."]
    if unknown:
        lines.append(f"Nobody recorded the times of {unknown} more jobs on GPUs: they come on top.")
    return lines


def jobs_of_cells(experiment: Experiment, cells: Iterable[str]) -> Jobs:
    """Training, pictures and scores of every run of `cells`."""
    return [
        (rule, {"cell": cell, "seed": str(seed)})
        for cell, seed in experiment.runs(list(dict.fromkeys(cells)))
        for rule in ("train", "generate", "score")
        if rule != "train" or experiment.cells[cell].trained
    ]


def table_costs(experiment: Experiment) -> str:
    """A line for each table, and one for all: a run that several tables show counts in each, and once in the sum."""
    lines = [f"GPU-hours of preset {experiment.preset}, from nothing, by recorded times:"]
    tables = [name for name in experiment.tables if name != SWEEP]
    for name in tables:
        cells = experiment.cells_of_table(name)
        trained = sum(experiment.cells[cell].trained for cell in cells)
        lines.append(cost_line(experiment, name, f"{trained:2d} trained cells", cells))
    every = [cell for name in tables for cell in experiment.cells_of_table(name)]
    trained = sum(experiment.cells[cell].trained for cell in dict.fromkeys(every))
    lines.append(cost_line(experiment, "together", f"{trained:2d} trained cells", every))
    return "\n".join(lines)


def cost_line(experiment: Experiment, name: str, what: str, cells: Iterable[str]) -> str:
    """One line of `table_costs`."""
    hours, _, unknown = gpu_hours(experiment, jobs_of_cells(experiment, cells))
    rest = f", and {unknown} jobs of unknown time" if unknown else ""
    return f"  {name:9s} {what}: {hours:8,.0f} GPU-hours{rest}"
