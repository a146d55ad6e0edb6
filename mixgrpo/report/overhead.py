"""What an iteration costs, as the `overhead` stage counted and timed it.

overhead/{model}.json    {"rows": {cell: {"sharing_on": {...}, "sharing_off": {...}, "one_by_one": {...}}},
                          "clock": "cpu" | "wall", "device": "...", "peak_flops": 1e12, ...}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixgrpo.report.inputs import LENIENT, read_json

UPDATE_COST = 3
"""Forward passes that one trained evaluation costs: its own, and a backward pass of twice that."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One cell, with sharing on or off. Counts and `image_seconds` are per image."""

    counted_rollout_evaluations: float
    """Network evaluations that were really made."""
    counted_update_evaluations: float
    iteration_seconds: float
    image_seconds: float
    rollout_nfe: float | None = None
    """As the paper counts it."""
    update_nfe: float | None = None
    rollout_seconds: float | None = None
    reward_seconds: float | None = None
    update_seconds: float | None = None
    rollout_flops: float | None = None
    """Of an iteration: counted from the model's config."""
    update_flops: float | None = None
    update_passes: float = UPDATE_COST
    """Forward passes that a trained evaluation costs."""
    memory_bytes: float | None = None
    """The most that the GPU held."""
    micro_batch: int | None = None
    """Images in one forward and backward pass."""
    gradient_checkpointing: bool = False

    __pydantic_config__ = LENIENT

    def __post_init__(self) -> None:
        for name in ("iteration_seconds", "image_seconds", "counted_rollout_evaluations"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive.")

    def utilisation(self, phase: str, peak: float) -> float | None:
        """Share of the `peak` operations per second that "rollout" or "update" made use of."""
        flops, seconds = getattr(self, f"{phase}_flops"), getattr(self, f"{phase}_seconds")
        return flops / seconds / peak if flops and seconds else None

    def predicted_cost(self, role: str) -> float:
        """In forward passes per image: of the rollout, and for `iteration_seconds` of the update too."""
        if role == "image_seconds":
            return self.counted_rollout_evaluations
        return (
            self.counted_rollout_evaluations + self.update_passes * self.counted_update_evaluations
        )


@dataclass(frozen=True, kw_only=True)
class SharedAndNot:
    """The same cell measured on every path."""

    sharing_on: Measurement
    sharing_off: Measurement
    one_by_one: Measurement | None = None
    """Unshared, and one image at a time."""

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """All cells of one model that a table times, measured in one process."""

    rows: dict[str, SharedAndNot]
    clock: str
    device: str
    peak_flops: float | None = None
    """Operations per second of a large matrix product, measured in the same run."""
    precision: str = ""
    trained: str = ""
    """What the updates train, in words."""
    num_positions: int | None = None
    repetitions: int | None = None
    compile: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)

    __pydantic_config__ = LENIENT


def read_overhead(path: Path) -> Overhead:
    """The measurements at `path`."""
    return read_json(path, Overhead, remedy=f"`snakemake {path}` measures it again")
