"""What Slurm says of a job."""

import re
from dataclasses import dataclass
from typing import Self

ENDED = {"CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}


@dataclass(frozen=True)
class Job:
    """A job as `scontrol show job` tells it; those that have ended are there for an hour."""

    facts: dict[str, str]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Of one line, `JobId=7 JobName=wrap ...`."""
        return cls(dict(re.findall(r"(\S+?)=(\S*)", line)))

    @property
    def id(self) -> str:
        return self.facts["JobId"]

    @property
    def state(self) -> str:
        return self.facts["JobState"]

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def rule(self) -> str:
        """Snakemake's comment: `rule_train_wildcards_mixgrpo_0`."""
        return self.facts.get("Comment", "")

    @property
    def node(self) -> str:
        """The node or nodes that it runs on."""
        return self.facts["NodeList"]

    @property
    def restarts(self) -> int:
        return int(self.facts["Restarts"])
