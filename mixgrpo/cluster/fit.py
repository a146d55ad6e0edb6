"""Whether a cluster has what a job needs: what sbatch answers with "not available", or takes and never starts."""

from collections.abc import Callable, Mapping

from mixgrpo.cluster.inventory import Nodes, Partition, default_partition, plural, span
from mixgrpo.cluster.needs import Need
from mixgrpo.planning.checking import unknown

PENDS = "Slurm would take the job and never start it"


def misfits(need: Need, partitions: Mapping[str, Partition]) -> list[str]:
    """Why no partition of those that it may run in can ever run it; none when one can."""
    names = partitions_of(need, partitions)
    if not names:
        return [
            "names no partition, and the cluster has no default one. Set slurm_partition in the profile: "
            f"there are {', '.join(sorted(partitions))}."
        ]
    strange = [name for name in names if name not in partitions]
    if strange:
        return [f"partition {unknown(name, partitions)}" for name in strange]
    found = [misfits_of(need, partitions[name], partitions) for name in names]
    return [] if [] in found else [sentence for sentences in found for sentence in sentences]


def misfits_of(need: Need, partition: Partition, partitions: Mapping[str, Partition]) -> list[str]:
    """Why one partition cannot run it: each thing by itself, and if all of these fit, all together."""
    found = [
        *gpu_misfits(need, partition, partitions),
        *size_misfits(need, partition),
        *time_misfits(need, partition),
    ]
    if found:
        return found
    fitting = count(partition, lambda nodes: holds(nodes, need))
    if fitting < need.nodes:
        return [
            f"{need.size} are wanted, and partition {partition.name} has {plural(fitting, 'node')} with all of it at "
            "once. Ask for less, or of another partition (slurm_partition)."
        ]
    return []


def gpu_misfits(need: Need, partition: Partition, partitions: Mapping[str, Partition]) -> list[str]:
    """Too many GPUs on a node, none at all, or none of that model."""
    wanted, model = need.gpus_per_node, need.gpu_model
    if not need.gpus or count(partition, lambda nodes: nodes.num_gpus(model) >= wanted):
        return []
    name = partition.name
    if not partition.models:
        others = [p.name for p in partitions.values() if p.models]
        hint = f"Partitions with GPUs: {', '.join(others)}" if others else "No partition has any"
        return [
            f"GPUs are wanted ({wanted} on a node), and partition {name} has none. {hint} "
            "(slurm_partition in the profile)."
        ]
    most = max(nodes.num_gpus(model) for nodes in partition.nodes)
    if model and not most:
        if partition.models == [""]:
            return [
                f"gpu_model is {model}, and the GPUs of partition {name} have no names there. "
                "Remove gpu_model from the profile; constraint may say what gpu_model cannot."
            ]
        return [
            f"gpu_model is {model}, and partition {name} has {', '.join(partition.models)}. Name one of "
            "these in the profile, or none."
        ]
    return [
        f"{wanted} GPUs{f' of model {model}' if model else ''} are wanted on a node (gpu={need.gpus} over "
        f"nodes={need.nodes}), and no node of partition {name} has more than {most}. Ask for fewer (gpu), "
        "or spread them over more nodes (nodes, tasks, launch)."
    ]


def size_misfits(need: Need, partition: Partition) -> list[str]:
    """Too many nodes, CPUs, or too much memory."""
    found, name = [], partition.name
    nodes = count(partition, lambda nodes: True)
    cpus = max((nodes.cpus for nodes in partition.nodes), default=0)
    mem_mb = max((nodes.mem_mb for nodes in partition.nodes), default=0)
    if need.nodes > nodes:
        found.append(
            f"{need.nodes} nodes are wanted, and partition {name} has {nodes}. {PENDS}. "
            "Lower nodes (with tasks and launch), or take another partition."
        )
    if need.cpus > cpus:
        found.append(
            f"{need.cpus} CPUs are wanted on a node, and no node of partition {name} has more than "
            f"{cpus}. {PENDS}. Lower threads or cpus_per_task."
        )
    if need.mem_mb > mem_mb:
        found.append(
            f"mem_mb={need.mem_mb} is wanted on each node, and no node of partition {name} has more than "
            f"{mem_mb}. Lower mem_mb, or take a partition with more memory."
        )
    return found


def time_misfits(need: Need, partition: Partition) -> list[str]:
    """Longer than the partition lets jobs run, or a partition that takes none."""
    found = []
    if need.runtime > partition.max_minutes:
        rest = (
            f"Set runtime={partition.max_minutes:g}: training saves a checkpoint before its time limit and goes on in "
            "the next job (retries)."
            if need.rule == "train"
            else f"Set runtime={partition.max_minutes:g} or less."
        )
        found.append(
            f"runtime={need.runtime:g} minutes are wanted, and partition {partition.name} ends jobs after "
            f"{partition.max_minutes:g} ({span(partition.max_minutes)}). {rest}"
        )
    if partition.state.startswith(("drain", "inact")):
        found.append(
            f"partition {partition.name} takes no jobs at present (sinfo: {partition.state}). Wait, or take another."
        )
    return found


def holds(nodes: Nodes, need: Need) -> bool:
    """Whether one of these nodes has a node's share of it."""
    return (
        nodes.cpus >= need.cpus
        and nodes.mem_mb >= need.mem_mb
        and (not need.gpus or nodes.num_gpus(need.gpu_model) >= need.gpus_per_node)
    )


def count(partition: Partition, is_meant: Callable[[Nodes], bool]) -> int:
    """How many nodes are."""
    return sum(nodes.count for nodes in partition.nodes if is_meant(nodes))


def waits(need: Need, partitions: Mapping[str, Partition]) -> list[str]:
    """A warning when so many nodes are out of use that it cannot start now."""
    names = partitions_of(need, partitions)
    for partition in (partitions[name] for name in names if name in partitions):
        usable = count(partition, lambda nodes: nodes.is_usable and holds(nodes, need))
        if usable >= need.nodes and not partition.state.startswith("down"):
            return []
    return [
        f"partition {' or '.join(names)}, or too many of its nodes, are down or drained at present (`sinfo`): "
        f"jobs wait until {plural(need.nodes, 'node')} that can hold one work again."
    ]


def partitions_of(need: Need, partitions: Mapping[str, Partition]) -> list[str]:
    """Names of those that it may run in."""
    names = need.partition or default_partition(partitions.values())
    return [name for name in names.split(",") if name]
