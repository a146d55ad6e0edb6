"""What a preset says of what its jobs need and of measuring what an iteration costs. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from mixgrpo.config import STRICT


@dataclass(frozen=True, kw_only=True)
class OverheadSheet:
    """How the cost of an iteration is measured."""

    paths: list[Literal["shared", "unshared", "one_by_one"]] = field(
        default_factory=lambda: ["shared", "unshared"]
    )
    """What a group has in common evaluated once, or for every image, or each image alone."""
    num_positions: int = 4
    """Iterations that are measured, at equal distances in the schedule."""
    repetitions: int = 1
    """Of each; their median counts."""
    compile: bool = False
    """Compile the blocks of the network (torch.compile)."""
    tables: list[str] = field(default_factory=list)
    """Tables whose cells are measured although they show no times."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("num_positions", "repetitions"):
            if getattr(self, name) < 1:
                raise ValueError(f"overhead.{name}={getattr(self, name)} must be 1 or more.")
        if not {"shared", "unshared"} <= {*self.paths} or len({*self.paths}) < len(self.paths):
            raise ValueError(
                f"overhead.paths={self.paths}: name each once, shared and unshared among them."
            )


@dataclass(frozen=True, kw_only=True)
class JobSheet:
    """What a job asks of the machine or the cluster."""

    gpu: int = 0
    """Over all its nodes."""
    nodes: int = 1
    """Machines of a cluster."""
    mem_mb: int = 4000
    """Of main memory on each node."""
    runtime: int = 60
    """Minutes."""
    launch: str = "python"
    """What starts it: the interpreter, or workflow/scripts/launch.sh NODES PROCESSES, of processes on each node."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.gpu < 0 or min(self.nodes, self.mem_mb, self.runtime) < 1:
            raise ValueError("gpu is 0 or more; nodes, mem_mb and runtime are 1 or more.")
        if self.gpu % self.nodes:
            raise ValueError(
                f"gpu: {self.gpu} is over all nodes, so nodes: {self.nodes} must divide it."
            )

    @property
    def seconds_to_stop(self) -> int:
        """How long before the end of `runtime` a training is told to stop: 15 minutes, or a quarter of little time.

        Slurm may tell it 60 s earlier.
        """
        return min(900, 15 * self.runtime)
