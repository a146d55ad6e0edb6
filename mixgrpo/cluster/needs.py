"""What the jobs of a run need of a cluster, from the resources that Snakemake plans them with."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mixgrpo.cluster.inventory import plural, read_minutes
from mixgrpo.planning.staleness import Job

SUBMITTED = (
    *("pretrain_model", "pretrain_sd3", "pretrain_reward"),
    *("embed", "train", "generate", "score", "overhead", "spread"),
)
"""Rules that are submitted; the others are moments of work on the submit host (`localrule` in workflow/rules)."""
LAUNCH = re.compile(r"launch\.sh (\d+) (\d+)")
SIGNAL = re.compile(r"--signal=\S*?@(\d+)")
MANAGED = re.compile(
    r"--(?:job-name|output|error|parsable|export|comment|workdir|account|partition|mem|mem-per-cpu|ntasks|ntasks-per-gpu"
    r"|cpus-per-task|cpus-per-gpu|time|constraint|qos|nodes|clusters|gres|gpus)(?=[=\s]|$)|(?<!\S)-[JoeDApnctCN](?=\s)"
)
"""Options of sbatch that the plugin gives itself, and refuses in slurm_extra."""
EARLY = 60
"""Seconds that Slurm may send a signal before its time."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What jobs of one rule ask for; those of another model may ask for more."""

    rule: str
    partition: str = ""
    """May be several, separated by commas; "" is the cluster's default."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = 1
    gpus: int = 0
    """Over all nodes."""
    gpu_model: str | None = None
    gres: str | None = None
    names_gpus_twice: bool = False
    """By `gpu` and by `gres`."""
    tasks: int = 1
    """Over all nodes."""
    cpus: int = 1
    """On each node."""
    mem_mb: int = 0
    """On each node; 0 where the partition's default applies."""
    runtime: float = 0
    """Minutes; 0 where the partition's default applies."""
    launch: str = ""
    extra: str = ""
    """More options of sbatch."""

    @property
    def gpus_per_node(self) -> int:
        """As even as Slurm may split them."""
        return math.ceil(self.gpus / self.nodes)

    @property
    def warned(self) -> int:
        """Seconds before its end at which it is told to stop; 0 if it is not."""
        match = SIGNAL.search(self.extra)
        return int(match[1]) if match else 0

    @property
    def size(self) -> str:
        """Its nodes, in a few words."""
        parts = [
            plural(self.gpus_per_node, "GPU") if self.gpus else "",
            plural(self.cpus, "CPU"),
            f"{self.mem_mb} MB" if self.mem_mb else "",
        ]
        return f"{plural(self.nodes, 'node')} of {', '.join(filter(None, parts))}"


def in_order(rules: Iterable[str]) -> list[str]:
    """Names of rules as their jobs follow each other."""
    return sorted(rules, key=SUBMITTED.index)


def of_site(need: Need) -> list[str]:
    """Where and as whom it runs, as options of sbatch and srun."""
    given = {"-p": need.partition, "-A": need.account, "-q": need.qos, "-C": need.constraint}
    return [word for option, value in given.items() if value for word in (option, value)]


def needs_of(jobs: Iterable[Job]) -> Counter[Need]:
    """How many of `jobs` are submitted with each need."""
    return Counter(need_of(job) for job in jobs if job.rule in SUBMITTED)


def need_of(job: Job) -> Need:
    """Of one job, as the executor plugin turns its resources into options of sbatch."""
    got = job.resources
    nodes, gres = max(whole(got, "nodes"), 1), text(got, "gres")
    model = text(got, "gpu_model")
    gpus = whole(got, "gpu") if "gpu" in got else (1 if model else 0)
    in_gres = re.match(r"gpu(?::(\D[^:]*))?(?::(\d+))?$", gres or "")
    if in_gres and not gpus:
        gpus, model = nodes * int(in_gres[2] or 1), in_gres[1]
    tasks = tasks_of(got, nodes, gpus)
    per_task = whole(got, "cpus_per_task") or job.threads
    cpus = math.ceil(tasks / nodes) * max(per_task, 1)
    if gpus and not whole(got, "cpus_per_task") and whole(got, "cpus_per_gpu") > 0:
        cpus = math.ceil(gpus / nodes) * whole(got, "cpus_per_gpu")
    per_cpu = whole(got, "mem_mb_per_cpu")
    runtime = got.get("runtime", 0)
    return Need(
        rule=job.rule,
        partition=text(got, "slurm_partition") or "",
        account=text(got, "slurm_account"),
        qos=text(got, "qos"),
        constraint=text(got, "constraint"),
        nodes=nodes,
        gpus=gpus,
        gpu_model=model,
        gres=gres,
        names_gpus_twice=bool(in_gres and (whole(got, "gpu") or text(got, "gpu_model"))),
        tasks=tasks,
        cpus=cpus,
        mem_mb=per_cpu * cpus if per_cpu else whole(got, "mem_mb"),
        runtime=runtime if isinstance(runtime, int | float) else read_minutes(str(runtime)),
        launch=text(got, "launch") or "",
        extra=text(got, "slurm_extra") or "",
    )


def tasks_of(got: Mapping[str, Any], nodes: int, gpus: int) -> int:
    """Processes that Slurm starts, over all nodes."""
    if got.get("mpi"):
        return whole(got, "tasks") or nodes * max(whole(got, "tasks_per_node"), 1)
    if gpus:
        per_gpu = whole(got, "tasks_per_gpu") if "tasks_per_gpu" in got else whole(got, "tasks")
        return gpus * per_gpu if per_gpu >= 1 else nodes
    return whole(got, "tasks") or nodes


def whole(got: Mapping[str, Any], key: str) -> int:
    """A resource that is a number; 0 if it is not there or not known yet."""
    value = got.get(key, 0)
    return value if isinstance(value, int) else 0


def text(got: Mapping[str, Any], key: str) -> str | None:
    """A resource that is words."""
    value = got.get(key)
    return None if value is None else str(value)


def contradictions(need: Need) -> list[str]:
    """What in one need does not go together, whatever the cluster."""
    found = []
    managed = MANAGED.search(need.extra)
    if managed:
        found.append(
            f"slurm_extra holds {managed[0]}, which the plugin gives itself and refuses there. Use the resource for "
            "it: runtime, mem_mb, nodes, tasks, gpu, gpu_model, qos, constraint, slurm_partition, slurm_account."
        )
    if need.names_gpus_twice:
        found.append(
            f"asks for GPUs twice, by gpu={need.gpus} and by gres={need.gres}, and the plugin refuses "
            "that. Keep gpu (with gpu_model for a model), and remove gres."
        )
    match = LAUNCH.search(need.launch)
    nodes, processes = (int(match[1]), int(match[2])) if match else (need.nodes, 0)
    if nodes != need.nodes or (need.gpus and processes and nodes * processes != need.gpus):
        found.append(
            f"launch starts {processes} processes on each of {plural(nodes, 'node')}, but "
            f"nodes={need.nodes} and gpu={need.gpus} over all of them. Let the three agree: one process a GPU."
        )
    if need.runtime and need.warned and need.runtime * 60 <= need.warned:
        found.append(
            f"--signal=...@{need.warned} (slurm_extra) is no later than the start of a job of runtime={need.runtime:g} "
            "minutes: it would be told to stop at once. Raise runtime, or lower --signal."
        )
    return found


def risks(need: Need) -> list[str]:
    """What goes well as long as no time limit comes."""
    if need.rule != "train":
        return []
    if not need.warned:
        return [
            "slurm_extra in the profile has taken the place of --signal=TERM@900: at its time limit a training would "
            "lose what it did since its last checkpoint. Write it there too."
        ]
    if need.runtime and need.runtime * 60 <= need.warned + EARLY:
        return [
            f"Slurm may send the signal {EARLY} s early, which is when the job starts (runtime={need.runtime:g} "
            f"minutes, --signal=...@{need.warned}): it would stop without having done anything. Raise runtime."
        ]
    return []
