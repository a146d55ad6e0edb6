"""What an iteration costs, as the `overhead` stage counted and timed it.

overhead/{model}.json    {"rows": {cell: {"sharing_on": {...}, "sharing_off": {...}}},
                          "clock": "cpu" | "wall", "device": "..."}
"""

from dataclasses import dataclass
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

    __pydantic_config__ = LENIENT

    def __post_init__(self) -> None:
        for name in ("iteration_seconds", "image_seconds", "counted_rollout_evaluations"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive.")

    def predicted_cost(self, role: str) -> float:
        """In forward passes per image: of the rollout, and for `iteration_seconds` of the update too."""
        if role == "image_seconds":
            return self.counted_rollout_evaluations
        return self.counted_rollout_evaluations + UPDATE_COST * self.counted_update_evaluations


@dataclass(frozen=True, kw_only=True)
class SharedAndNot:
    """The same cell measured twice."""

    sharing_on: Measurement
    sharing_off: Measurement

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """All cells of one model that a table times, measured in one process."""

    rows: dict[str, SharedAndNot]
    clock: str
    device: str

    __pydantic_config__ = LENIENT


def read_overhead(path: Path) -> Overhead:
    """The measurements at `path`."""
    return read_json(path, Overhead, remedy=f"`snakemake {path}` measures it again")
