"""`make status`: what is stale and why, what it would cost, what runs now.

python -m mixgrpo.planning.status --preset tiny [--seeds 3] [--tables "1 4"] [--cores 2]
"""

import sys
from collections.abc import Iterable, Sequence

from mixgrpo.planning.command import Request, answer
from mixgrpo.planning.forecast import KEYS, PHASES, heading, listed, todo, wrapped
from mixgrpo.planning.running import workflows
from mixgrpo.planning.staleness import Cause, Job, causes

NOUNS = {
    **{rule: phase.noun for phase in PHASES for rule in phase.rules},
    "settings": "cell",
    "evaluation": "cell",
    "table_spec": "table",
    "figure_spec": "figure",
}
"""What a job of a rule works on."""
PREFIXES = {
    "evaluation": "its pictures",
    "generate": "its pictures",
    "score": "its scores",
    "overhead": "its cost",
    "spread": "its spread",
}
"""What is stale of that; else all of it."""
WHOLE = {"rewards": "every score", "pretrain_settings": "the base world", "page": "the page"}
"""What is stale when a rule has one job."""


def status(request: Request) -> str:
    """The whole answer."""
    running = [line for workflow in workflows() for line in workflow.lines()]
    jobs = request.stale_jobs()
    parts = [[heading(request.experiment)], running or ["Nothing is running."]]
    if jobs:
        work = [(job.rule, job.wildcards) for job in jobs]
        costs = todo(request.experiment, work, cores=request.cores)
        parts += [["Not up to date, because:", *why(jobs)], ["`make reproduce` would:", *costs]]
    else:
        parts.append(["Everything is up to date."])
    return "\n\n".join("\n".join(part) for part in parts)


def why(jobs: Sequence[Job]) -> list[str]:
    """A line for each cause, with what it makes stale."""
    groups: dict[tuple[str, str, str], list[Job]] = {}
    for job, cause in roots(jobs):
        prefix = "" if cause.kind == "missing" else PREFIXES.get(job.rule, "")
        text = f"{prefix}: {cause.text}" if prefix else cause.text
        groups.setdefault((WHOLE.get(job.rule, ""), NOUNS.get(job.rule, ""), text), []).append(job)
    lines = [
        wrapped(f"  {whole or subjects(group, noun)}: {text}")
        for (whole, noun, text), group in groups.items()
    ]
    return list(dict.fromkeys(lines))


def roots(jobs: Sequence[Job]) -> Iterable[tuple[Job, Cause]]:
    """Every job with each cause that is not explained by a job before it."""
    makers = {file: job for job in jobs for file in job.output}
    for job in jobs:
        before = [makers[file] for file in job.input if file in makers]
        plan_changed = any(b.writes_plan and causes(b) for b in before)
        for cause in causes(job):
            if cause.kind == "missing" and (job.writes_plan or follows(job, before)):
                continue
            if cause.kind == "plan" and plan_changed and not job.writes_plan:
                continue
            yield job, cause


def follows(job: Job, before: Iterable[Job]) -> bool:
    """Whether a job of the same run, or of the same thing, is missing before it."""
    return any(
        other.wildcards == job.wildcards
        and not other.writes_plan
        and any(cause.kind == "missing" for cause in causes(other))
        for other in before
    )


def subjects(jobs: Sequence[Job], noun: str) -> str:
    """What jobs work on: `mixgrpo, seed 0` or `49 cells (...)`."""
    found = [subject(job) for job in jobs]
    seed = jobs[0].wildcards.get("seed")
    if len(found) > 1:
        return listed(found, noun or "job")
    return found[0] if seed is None else f"{found[0]}, seed {seed}"


def subject(job: Job) -> str:
    """What one job works on."""
    if "split" in job.wildcards:
        return f"{job.wildcards['dataset']} {job.wildcards['split']}"
    return next((job.wildcards[key] for key in KEYS if key in job.wildcards), job.rule)


if __name__ == "__main__":
    sys.exit(answer(status, __doc__))
