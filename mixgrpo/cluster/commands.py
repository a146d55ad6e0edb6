"""Slurm's commands, each with a time limit."""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

COMMANDS = ("sbatch", "squeue", "scancel", "sacct", "sinfo", "scontrol", "srun")
"""What Snakemake's plugin and this check call. `sacct` is asked for even where no accounting is kept."""
PATIENCE = 10.0
"""Seconds that a controller may take to answer."""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int | None
    """Its exit status; None when it did not end in time."""
    text: str = ""
    error: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it ended well."""
        return self.status == 0

    @property
    def complaint(self) -> str:
        """Its first words of complaint, without the name of the command; the last ones of srun say less."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        if not lines:
            return "nothing" if self.status is None else f"exit status {self.status}"
        return lines[0].partition("error: ")[2] or lines[0]


class Ask(Protocol):
    """Runs a command; tests have one of their own."""

    def __call__(self, *command: str, patience: float = PATIENCE) -> Answer:
        """Its answer, whatever it is."""


def ask(*command: str, patience: float = PATIENCE) -> Answer:
    """Run it. Past its time it is told to stop first: a killed srun would leave its place in the queue."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=outside_jobs(os.environ),
        )
    except OSError as error:
        return Answer(127, error=str(error))
    with process:
        try:
            text, complaint = process.communicate(timeout=patience)
            return Answer(process.returncode, text, complaint)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
    return Answer(None)


def outside_jobs(environment: os._Environ[str]) -> dict[str, str]:
    """Without what a job of Slurm has in its environment, by which srun would become a part of that job."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {k: v for k, v in environment.items() if not k.startswith("SLURM_") or k in kept}


def missing_commands(which: Callable[[str], str | None]) -> list[str]:
    """The sentence on commands that are not on PATH."""
    missing = [name for name in COMMANDS if which(name) is None]
    if not missing:
        return []
    return [
        f"Slurm's {listed(missing)} {'is' if len(missing) == 1 else 'are'} not on PATH. Start this on a machine that "
        "submits to the cluster (its login node), perhaps after `module load slurm`."
    ]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["sbatch"]), listed(["sbatch", "sacct", "srun"])
    ('sbatch', 'sbatch, sacct and srun')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
