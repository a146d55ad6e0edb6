"""What a cluster has: `sinfo` and `scontrol show config`, read."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

SINFO = ("sinfo", "-h", "-a", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G|%T")
"""Of every partition: a line for each kind of node (-e: exact) in each state."""
CONFIG = ("scontrol", "show", "config")
OUT_OF_USE = ("down", "drain", "fail", "unk", "inval", "error", "no_respond", "future")
"""How states of nodes start that take no jobs."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike and in the same state."""

    count: int
    cpus: int
    mem_mb: int
    gpus: tuple[tuple[str, int], ...]
    """(model, number) on each; the model is "" where the cluster names none."""
    state: str

    @property
    def is_usable(self) -> bool:
        """Whether they take jobs, now or when others have ended."""
        return not self.state.lower().startswith(OUT_OF_USE)

    def num_gpus(self, model: str | None) -> int:
        """GPUs of a node; of that model only, if one is asked for."""
        return sum(n for name, n in self.gpus if model is None or name.lower() == model.lower())

    def __str__(self) -> str:
        """What each has."""
        gpus = ", ".join(":".join(filter(None, ["gpu", name, str(n)])) for name, n in self.gpus)
        return f"{self.cpus} CPUs, {self.mem_mb} MB, {gpus or 'no GPU'}"


@dataclass(frozen=True)
class Partition:
    """A queue and its nodes."""

    name: str
    is_default: bool
    state: str
    """up; down: jobs wait; drain: takes none; inactive: neither."""
    max_minutes: float
    """Of a job; infinity where there is no limit."""
    nodes: tuple[Nodes, ...]

    @property
    def models(self) -> list[str]:
        """Models of its GPUs; "" for those that have no name."""
        return sorted({name for nodes in self.nodes for name, _ in nodes.gpus})

    def __str__(self) -> str:
        """In one line."""
        kinds: dict[str, int] = {}
        for nodes in self.nodes:
            kinds[str(nodes)] = kinds.get(str(nodes), 0) + nodes.count
        text = "; ".join(f"{plural(count, 'node')} of {kind}" for kind, count in kinds.items())
        return f"partition {self.name}: {text or 'no nodes'}; time limit {span(self.max_minutes)}"


def read_partitions(text: str) -> dict[str, Partition]:
    """What `SINFO` wrote. Numbers such as 515000+ are the least of nodes that differ."""
    found: dict[str, Partition] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, available, limit, count, cpus, mem_mb, gres, state = line.split("|")
        nodes = Nodes(number(count), number(cpus), number(mem_mb), read_gpus(gres), state)
        known = found.get(name.rstrip("*"))
        found[name.rstrip("*")] = Partition(
            name=name.rstrip("*"),
            is_default=name.endswith("*"),
            state=available,
            max_minutes=read_minutes(limit),
            nodes=(*(known.nodes if known else ()), *([nodes] if nodes.count else [])),
        )
    return found


def number(text: str) -> int:
    """The digits that it starts with.

    >>> number("515000+"), number("4"), number("n/a")
    (515000, 4, 0)
    """
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def read_gpus(gres: str) -> tuple[tuple[str, int], ...]:
    """(model, number) of the GPUs among generic resources.

    >>> read_gpus("gpu:h100:4(S:0-1)"), read_gpus("gpu:a100:8,shard:a100:32"), read_gpus("gpu:2"), read_gpus("(null)")
    ((('h100', 4),), (('a100', 8),), (('', 2),), ())
    """
    found = []
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = part.strip().split(":")
        if name == "gpu":
            count = rest.pop() if rest and rest[-1].isdecimal() else "1"
            found.append((":".join(rest), int(count)))
    return tuple(found)


def read_minutes(text: str) -> float:
    """A time of Slurm's, [days-][hours:]minutes:seconds or minutes.

    >>> [read_minutes(t) for t in ("infinite", "1-00:00:00", "2:30:00", "10:00", "2-12", "90")]
    [inf, 1440.0, 150.0, 10.0, 3600.0, 90.0]
    """
    days, dash, rest = text.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in parts) or not (days or "0").isdecimal():
        return math.inf
    values = [int(part) for part in parts]
    if dash:  # days-hours[:minutes[:seconds]]
        values = [*values, 0, 0][:3]
    elif len(values) < 3:  # minutes[:seconds]
        values = [0, *values, 0][:3]
    hours, minutes, seconds = values
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60


def read_config(text: str) -> dict[str, str]:
    """What `CONFIG` wrote.

    >>> read_config("MinJobAge               = 300 sec")
    {'MinJobAge': '300 sec'}
    """
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def span(minutes: float) -> str:
    """A time as Slurm writes it.

    >>> span(math.inf), span(90), span(2880)
    ('infinite', '1:30:00', '2-00:00:00')
    """
    if math.isinf(minutes):
        return "infinite"
    days, rest = divmod(round(minutes), 24 * 60)
    text = f"{rest // 60}:{rest % 60:02d}:00"
    return f"{days}-{text.zfill(8)}" if days else text


def plural(count: int, noun: str) -> str:
    """A number and what it counts.

    >>> plural(1, "node"), plural(2, "node")
    ('1 node', '2 nodes')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def default_partition(partitions: Iterable[Partition]) -> str:
    """The one that takes jobs which name none; "" if there is none."""
    return next((partition.name for partition in partitions if partition.is_default), "")
