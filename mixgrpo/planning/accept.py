"""`make accept`: "I accept this change of code, do not make again what other code made".

python -m mixgrpo.planning.accept --preset tiny [--seeds 3] [--tables "1 4"]

Only what is stale because of code, and what follows from it, is accepted. What was never made, or would be
made with other settings, from other files or by other rewards, stays to be made.
"""

import sys
from collections.abc import Sequence, Set
from pathlib import Path

from mixgrpo.planning.command import Request, answer
from mixgrpo.planning.staleness import Job, causes
from mixgrpo.planning.status import why


def accept(request: Request) -> str:
    """Accept, and say what.

    Snakemake tells of a job that follows from another one only that, and its own causes when the other one is
    done. So this goes on until nothing that may be accepted comes to light, or nothing new.
    """
    reasons: list[Job] = []
    kept: set[str] = set()
    seen: set[frozenset[str]] = set()
    jobs = request.stale_jobs()
    while accepted := acceptable(jobs, kept):
        found = frozenset(f"{job.output} {job.reason}" for job in accepted)
        if found in seen:
            break
        seen.add(found)
        reasons += [job for job in accepted if any(c.kind == "code" for c in causes(job))]
        record(request, accepted)
        kept.update(file for job in accepted for file in job.output)
        jobs = request.stale_jobs()
    if not reasons:
        lines = ["Nothing to accept: nothing is stale because of code alone."]
    else:
        lines = ["Accepted as they are, though made by other code:", *why(reasons)]
    if jobs:
        lines += ["", "Still to be made, for other reasons (make status):", *why(jobs)]
    return "\n".join(lines)


def acceptable(jobs: Sequence[Job], unchanged: Set[str] = frozenset()) -> list[Job]:
    """Jobs that nothing but code makes stale, themselves and all before them; each after those that it follows.

    A plan is among them only with a result that it is for.
    unchanged: files that are newer than what was made from them, but of which it is known that they are the same.
    """
    makers = {file: job for job in jobs for file in job.output}
    verdicts: dict[int, bool] = {}
    found: list[Job] = []

    def is_acceptable(job: Job) -> bool:
        if id(job) not in verdicts:
            before = [makers[file] for file in job.input if file in makers]
            verdicts[id(job)] = all([is_acceptable(other) for other in before]) and all(
                cause.kind == "code" or (cause.kind == "files" and set(cause.files) <= unchanged)
                for cause in causes(job)
            )
            found.extend([job] if verdicts[id(job)] else [])
        return verdicts[id(job)]

    for job in jobs:
        is_acceptable(job)
    read = {file for job in found if not job.writes_plan for file in job.input}
    return [job for job in found if not job.writes_plan or read.intersection(job.output)]


def record(request: Request, accepted: list[Job]) -> None:
    """Let the results of these jobs count as current.

    A run's settings hold the code that it is planned with, and training refuses other code: they are written
    anew, which takes no time. Of results, Snakemake records that the code as it is now made them; those that
    only follow from others become newer than these.
    """
    plans = [job for job in accepted if job.writes_plan]
    results = [job for job in accepted if not job.writes_plan]
    changed = [job for job in results if any(cause.kind == "code" for cause in causes(job))]
    if plans:
        request.snakemake("--cores", "1", targets=outputs(plans))
    if changed:
        request.snakemake("--cores", "1", "--touch", targets=outputs(changed))
    for file in [*outputs(results), *filter(None, (job.benchmark for job in results))]:
        if Path(file).exists():
            Path(file).touch()


def outputs(jobs: list[Job]) -> list[str]:
    """All files that they make."""
    return [file for job in jobs for file in job.output]


if __name__ == "__main__":
    sys.exit(answer(accept, __doc__))
