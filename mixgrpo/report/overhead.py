"""What an iteration costs: counted and timed by the `overhead` stage, and as ratios.

    overhead/{table}.json    {"rows": {cell: {"sharing_on": {...}, "sharing_off": {...}}},
                              "clock": "cpu" | "wall", "device": "..."}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixgrpo.errors import UserError
from mixgrpo.report.inputs import LENIENT, read_json

UPDATE_COST = 3
"""Forward passes that one trained evaluation costs: its own, and a backward pass of twice that."""
SHARINGS = ("sharing_on", "sharing_off")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One cell, with sharing on or off; all per image but the two times of an iteration."""

    rollout_nfe: float
    """The paper's accounting: T, or l + w + K averaged over the schedule."""
    update_nfe: float
    """The paper's accounting: denoising steps trained."""
    counted_rollout_evaluations: float
    """Network evaluations that were really made."""
    counted_update_evaluations: float
    iteration_seconds: float
    image_seconds: float

    __pydantic_config__ = LENIENT

    def predicted_cost(self, role: str) -> float:
        """In forward passes: an iteration's rollout + update * `UPDATE_COST`, or an image's rollout."""
        if role == "image_seconds":
            return self.counted_rollout_evaluations
        return self.counted_rollout_evaluations + UPDATE_COST * self.counted_update_evaluations


@dataclass(frozen=True, kw_only=True)
class SharedAndNot:
    """One row: the same cell measured twice."""

    sharing_on: Measurement
    sharing_off: Measurement

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """All rows of one table, measured in one process."""

    rows: dict[str, SharedAndNot]
    clock: str
    device: str

    __pydantic_config__ = LENIENT

    def measured(self, cell: str, sharing: str) -> Measurement | None:
        """`sharing`: sharing_on or sharing_off."""
        row: Measurement | None = getattr(self.rows.get(cell), sharing, None)
        return row


def read_overhead(path: Path) -> Overhead:
    """The measurements at `path`, every one a positive number."""
    remedy = f"`snakemake {path}` measures it again"
    overhead = read_json(path, Overhead, remedy=remedy)
    for cell in overhead.rows:
        for sharing in SHARINGS:
            row = overhead.measured(cell, sharing)
            assert row is not None
            for name in ("iteration_seconds", "image_seconds", "counted_rollout_evaluations"):
                if getattr(row, name) <= 0:
                    raise UserError(
                        f"{path}: rows.{cell}.{sharing}.{name} = {getattr(row, name)}; wanted a "
                        f"positive number. Delete it; {remedy}."
                    )
    return overhead


def ratios(values: Sequence[float | None]) -> list[float | None]:
    """Each value over the first one that is there.

    >>> ratios([None, 4.0, 2.0, None])
    [None, 1.0, 0.5, None]
    """
    first = next((value for value in values if value is not None), None)
    return [None if value is None or first is None else value / first for value in values]
