"""Snakemake in the background, submitting to a cluster."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from tests.slurm.cluster import Fact, wait_for
from tests.slurm.experiment import Experiment, text
from tests.slurm.job import Job
from tests.workflow.checkout import PRESET

LIKE_MAKE = (
    *("--logger", "brief", "--workflow-profile", "workflow/profiles/slurm"),
    *("--local-cores", "2", "--config", PRESET),
)
"""As `make slurm` calls it."""
FAST = (
    "--slurm-init-seconds-before-status-checks=1",
    "--max-status-checks-per-second=10",
)


class Run:
    """`make slurm`, as a person would have it in a terminal."""

    alive: ClassVar[list["Run"]] = []
    """All that were started in this test."""

    def __init__(self, experiment: Experiment, *options: str, fast: bool = True) -> None:
        self.experiment = experiment
        number = len(list(experiment.root.glob("run*.log")))
        self.log = experiment.root / f"run{number}.log"
        self.polled = self.log.with_suffix(".polled")
        program = [str(Path(__file__).with_name("fast_polls.py")), *FAST]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, *(program if fast else ("-m", "snakemake")), *LIKE_MAKE, *options],
                cwd=experiment.root,
                env={**experiment.environment, "POLLED": str(self.polled)},
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=listen_to_ctrl_c,
            )
        self.alive.append(self)

    @property
    def said(self) -> str:
        return text(self.log)

    def jobs(self, rule: str = "") -> list[Job]:
        """Slurm's jobs of this run."""
        ids = re.findall(r"submitted with SLURM jobid (\d+)", self.said)
        jobs = self.experiment.cluster.jobs()
        return [job for job in jobs if job.id in ids and job.rule.startswith(rule)]

    def wait_for(self, fact: Callable[[], Fact], what: str, *, seconds: float = 180) -> Fact:
        """Until something is so, while Snakemake runs."""

        def still() -> Fact:
            code = self.process.poll()
            found = fact()
            assert found or code is None, f"Snakemake ended with {code} before {what}"
            return found

        return wait_for(still, what, seconds=seconds)

    def end(self, code: int = 0) -> str:
        """Everything that it said, once it has ended with that code."""
        assert self.process.wait(600) == code, f"Snakemake ended with {self.process.returncode}"
        return self.said

    def ctrl_c(self) -> None:
        """As from a terminal; between two questions for the state of jobs, for during one none is cancelled."""
        before = last_change(self.polled)
        self.wait_for(lambda: last_change(self.polled) != before, "Snakemake asks for states")
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def story(self) -> str:
        """What a person needs to see of a failure: Snakemake's log and those of the last rules."""
        logs = sorted(self.experiment.root.glob("logs/**/*.log"), key=last_change)[-4:]
        return "\n".join(f"--- {log}\n{text(log)[-4000:]}" for log in (self.log, *logs))


def listen_to_ctrl_c() -> None:
    """In a child: what a shell starts in the background ignores SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def last_change(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
