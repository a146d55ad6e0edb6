"""What a run of the workflow is about to do, and how long it may take, for the person who started it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixgrpo.planning.experiment import Experiment

Jobs = Sequence[tuple[str, Mapping[str, str]]]
"""(rule, wildcards) of jobs."""

PHASES: dict[str, tuple[str, ...]] = {
    "make the base world": ("pretrain_model", "pretrain_reward"),
    "write and embed prompts": ("prompts", "embed"),
    "train": ("train",),
    "generate pictures": ("generate",),
    "score them": ("score",),
    "measure overhead, alone on the machine": ("overhead",),
    "make tables and figures": ("table", "figure"),
}
"""What people call the work of which rules, in the order in which it happens."""


def forecast(experiment: Experiment, planned: Iterable[Any], *, cores: int) -> str:
    """A few lines: what will be done, roughly how long it takes, where it goes.

    planned: Snakemake's jobs.
    """
    jobs = [(job.rule.name, dict(job.wildcards)) for job in planned]
    seeds = ", ".join(map(str, experiment.seeds))
    lines = [
        f"Preset {experiment.preset} ({experiment.sheet.scale}), training seeds {seeds}. To do:"
    ]
    total = 0.0
    for phase, rules in PHASES.items():
        todo = [(rule, wildcards) for rule, wildcards in jobs if rule in rules]
        if todo:
            total += phase_seconds(experiment, todo, cores=1 if "overhead" in rules else cores)
            lines.append(f"  {phase}: {', '.join(names(todo))}")
    if not total:
        return "\n".join(lines)
    minutes = "about a minute" if total < 90 else f"about {round(total / 60)} minutes"
    plural = "s" if cores > 1 else ""
    lines += [
        f"This takes {minutes} on {cores} core{plural} like the one its parts were timed on.",
        f"Each job logs to logs/{experiment.preset}/ as it runs. Interrupt when you like: a rerun goes on.",
    ]
    return "\n".join(lines)


def phase_seconds(experiment: Experiment, jobs: Jobs, *, cores: int) -> float:
    """Wall seconds of independent jobs on `cores` cores: no less than the longest of them."""
    seconds = [job_seconds(experiment, rule, wildcards) for rule, wildcards in jobs]
    return max(max(seconds), sum(seconds) / cores)


def job_seconds(experiment: Experiment, rule: str, wildcards: Mapping[str, str]) -> float:
    """Measured seconds of one job; a cell of a sweep costs what its cell does."""
    cell = wildcards.get("cell", "")
    if cell in experiment.cells:
        cell = experiment.cells[cell].group or cell
    seconds = experiment.sheet.seconds
    return seconds.get(f"{rule} {cell}", seconds.get(rule, 0.0))


def names(jobs: Jobs) -> list[str]:
    """What a phase works on, each once: `mixgrpo`, or `mixgrpo x 3` when it has three jobs.

    >>> names([("train", {"cell": "flash", "seed": "0"}), ("train", {"cell": "flash", "seed": "1"})])
    ['flash x 2']
    """
    keys = ("component", "cell", "table", "figure", "dataset")
    found = [next(wildcards[key] for key in keys if key in wildcards) for _, wildcards in jobs]
    counts = {name: found.count(name) for name in sorted(found)}
    return [name if count == 1 else f"{name} x {count}" for name, count in counts.items()]
