"""What a run of the workflow is about to do, and how long it may take, for the person who started it."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.gpu_hours import gpu_lines, needs_gpus
from mixgrpo.planning.times import KEYS, Jobs, job_seconds

WIDTH = 100


@dataclass(frozen=True)
class Phase:
    """What people call the work of some rules."""

    title: str
    noun: str
    rules: tuple[str, ...]


PHASES = (
    Phase("make the base world", "model", ("pretrain_model", "pretrain_sd3", "pretrain_reward")),
    Phase("write and embed prompts", "file", ("prompts", "embed")),
    Phase("train", "cell", ("train",)),
    Phase("generate pictures", "cell", ("generate",)),
    Phase("score them", "cell", ("score",)),
    Phase("measure cost and spread", "measurement", ("overhead", "spread")),
    Phase("make tables", "table", ("table",)),
    Phase("draw figures", "figure", ("figure",)),
    Phase("make the page of everything", "page", ("page",)),
)
"""In the order in which it happens."""


def forecast(experiment: Experiment, planned: Iterable[Any], *, cores: int) -> str:
    """A few lines: what will be done, roughly how long it takes, where it goes.

    planned: Snakemake's jobs.
    """
    jobs = [(job.rule.name, dict(job.wildcards)) for job in planned]
    work = todo(experiment, jobs, cores=cores)
    if not work:
        return heading(experiment)
    lines = [f"{heading(experiment)} To do:", *work]
    lines += [
        f"Each job logs to logs/{experiment.preset}/ as it runs; `make status` in another terminal sums it up.",
        "Interrupt when you like: a rerun goes on.",
    ]
    return "\n".join(lines)


def heading(experiment: Experiment) -> str:
    """Which world, which seeds."""
    seeds = ", ".join(map(str, experiment.seeds))
    return f"Preset {experiment.preset} ({experiment.sheet.scale}), training seeds {seeds}."


def todo(experiment: Experiment, jobs: Jobs, *, cores: int) -> list[str]:
    """A line for each phase of the work, and one for the time it takes; none when there is no work."""
    lines, total, longest = [], 0.0, 0.0
    for phase in PHASES:
        part = [(rule, wildcards) for rule, wildcards in jobs if rule in phase.rules]
        if part:
            seconds = [job_seconds(experiment, rule, wildcards) for rule, wildcards in part]
            total, longest = total + sum(seconds), longest + max(seconds)
            lines.append(wrapped(f"  {phase.title}: {listed(names(part), phase.noun)}"))
    if needs_gpus(experiment):
        return lines + gpu_lines(experiment, jobs)
    if total:
        time = span(max(total / cores, longest))
        plural = "s" if cores > 1 else ""
        lines.append(f"This takes {time} on {cores} core{plural}, judged by recorded times.")
    return lines


def span(seconds: float) -> str:
    """A time, as roughly as it is known.

    >>> [span(20), span(700), span(9000)]
    ['about a minute', 'about 12 minutes', 'about 2.5 hours']
    """
    if seconds < 90:
        return "about a minute"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


def names(jobs: Jobs) -> list[str]:
    """What each job works on.

    >>> names([("train", {"cell": "flash", "seed": "0"}), ("page", {})])
    ['flash', 'page']
    """
    return [
        next((wildcards[key] for key in KEYS if key in wildcards), rule) for rule, wildcards in jobs
    ]


def listed(names: Sequence[str], noun: str, *, most: int = 12) -> str:
    """How many, and which, as long as they are few enough to read.

    >>> listed(["mixgrpo", "flash"], "cell")
    '2 cells (flash, mixgrpo)'
    >>> listed(["flash", "flash"], "cell")
    '1 cell, 2 runs (flash)'
    >>> listed(["a", "b", "c"], "table", most=2)
    '3 tables (a, b and 1 more)'
    """
    single = sorted(set(names))
    if single == [noun]:
        return noun
    count = len(single) if noun == "cell" else len(names)
    runs = f", {len(names)} runs" if count < len(names) else ""
    more = f" and {len(single) - most} more" if len(single) > most else ""
    plural = "s" if count > 1 else ""
    return f"{count} {noun}{plural}{runs} ({', '.join(single[:most])}{more})"


def wrapped(line: str) -> str:
    """In lines that fit a terminal, the later ones further in."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.fill(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
