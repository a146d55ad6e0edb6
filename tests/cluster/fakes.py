"""A cluster that is only text: what Slurm 22.05.8 wrote on a small one, and larger ones in the same words."""

from collections.abc import Mapping
from pathlib import Path

from mixgrpo.cluster.commands import Answer
from mixgrpo.planning.staleness import Job

SINFO = """\
batch*|up|infinite|2|4|4000|gpu:h100:2|idle
scav|up|infinite|2|4|4000|gpu:h100:2|idle
"""
LARGE = """\
cpu*|up|2-00:00:00|40|64|257000+|(null)|mixed
gpu|up|1-00:00:00|3|96|515000|gpu:h100:4(S:0-1)|idle
gpu|up|1-00:00:00|1|96|515000|gpu:h100:4(S:0-1)|drained*
mixed|up|infinite|2|128|1030000|gpu:a100:8(S:0-3),shard:a100:32(S:0-3)|alloc
mixed|up|infinite|4|16|64000|gpu:2|idle~
maint|drain|infinite|1|8|16000|(null)|idle
empty|up|infinite|0|0|0|(null)|n/a
"""
CONFIG = """\
Configuration data as of 2026-11-28T23:47:01
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/none
ClusterName             = test
MinJobAge               = 300 sec
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at localhost is UP
"""
WITH_DATABASE = CONFIG.replace("storage/none", "storage/slurmdbd")
ENFORCED = WITH_DATABASE.replace("Enforce = none", "Enforce = associations,limits,qos")
PROFILE = """\
default-resources:
  slurm_partition: batch
  runtime: 60
executor: slurm
jobs: 20
slurm-status-command: squeue
slurm-status-attempts: 360
max-status-checks-per-second: 0.1
"""
TRAIN = {"gpu": 4, "nodes": 2, "tasks": 2, "tasks_per_gpu": 0, "mpi": "srun", "mem_mb": 3000}
TRAIN |= {"runtime": 1440, "slurm_extra": "--signal=TERM@900", "slurm_partition": "batch"}
TRAIN |= {"launch": "workflow/scripts/launch.sh 2 2"}


class Cluster:
    """Answers by the name of the command; all is well unless a test says otherwise."""

    def __init__(self, **answers: str | Answer) -> None:
        well: dict[str, str | Answer] = {"sinfo": SINFO, "scontrol": CONFIG, "squeue": ""}
        well |= {"sbatch": "", "srun": "on n1\nfine\n", "sacctmgr": ""}
        self.answers = well | answers
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *command: str, patience: float = 10.0) -> Answer:
        self.asked.append(command)
        answer = self.answers[command[0]]
        answer = answer(command) if callable(answer) else answer
        return answer if isinstance(answer, Answer) else Answer(0, answer)


def job(rule: str = "train", threads: int = 1, **resources: object) -> Job:
    """As a dry run tells of it: those of `TRAIN`, changed; None takes one away."""
    got: Mapping[str, object] = {**TRAIN, **resources}
    return Job(
        rule=rule,
        wildcards={},
        input=[],
        output=["x"],
        reason="",
        message="",
        threads=threads,
        resources={key: value for key, value in got.items() if value is not None},
    )


def score(**resources: object) -> Job:
    """A job of one process."""
    one = dict.fromkeys(("nodes", "tasks", "mpi", "launch", "slurm_extra", "tasks_per_gpu"))
    return job("score", **{**one, "gpu": 0, "runtime": 60, **resources})


def write_profile(folder: Path, text: str = PROFILE) -> Path:
    """A profile in a folder of its own."""
    (folder / "profile").mkdir(exist_ok=True)
    path = folder / "profile/profile.yaml"
    path.write_text(text)
    return path
