"""What stands in config/ beside the settings of a run: presets, cells, tables, figures, the sweep.

Frozen dataclasses that say what a person may write; `mixgrpo.planning.experiment` resolves them. Torch-free.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from mixgrpo.config import STRICT, ModelConfig

OVERHEAD_ROLES = ("rollout_nfe", "update_nfe", "iteration_seconds", "image_seconds")
"""Columns that the overhead stage fills; every other column is a reward."""
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class DatasetSheet:
    """One of the preset's datasets: what plays the paper's role."""

    name: str
    """A key of SOURCES in mixgrpo/stages/prompts.py."""
    splits: dict[Split, int]
    """Number of prompts of each split."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for split, count in self.splits.items():
            if count < 1:
                raise ValueError(f"splits.{split}={count}: wanted at least 1 prompt.")


@dataclass(frozen=True, kw_only=True)
class RewardSheet:
    """One of the preset's reward models: what plays the paper's role."""

    name: str
    """File name in mixgrpo/rewards/."""
    path: str | None = None
    """Directory of its weights; null for a measure without weights."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class EvaluationSheet:
    """How pictures for evaluation are sampled: the ODE, the same noise for every cell."""

    num_steps: int
    """Denoising steps."""
    shift: float
    """Time shift of the schedule."""
    seed: int
    """Of the evaluation noise, apart from the seeds that train."""
    batch_size: int
    """Images sampled at a time."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("num_steps", "shift", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"evaluation.{name}={getattr(self, name)} must be positive.")


@dataclass(frozen=True, kw_only=True)
class PresetSheet:
    """What a preset says beside the settings that it overrides."""

    scale: str
    """One line for people: what was trained, and how small. Printed in every table and figure."""
    models: dict[str, ModelConfig]
    datasets: dict[str, DatasetSheet]
    """By the paper's role: hpdv2, pick_a_pic."""
    reward_models: dict[str, RewardSheet]
    """By the paper's role: hps_v2_1, pick_score, ..."""
    pretrain: dict[str, Any] | None = None
    """How the preset's own world is made (mixgrpo/tiny); null when weights are given."""
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings that single cells override in this preset, such as a tuned learning rate."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Measured seconds of a job on one core, by rule or `rule cell`: announced, used for nothing else."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Column:
    """How a table shows one quantity."""

    header: str
    digits: int
    published: str | None = None
    """Its column in the published csv files."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell as a table or figure shows it."""

    cell: str
    label: str
    published: int | None = None
    """Its row in the published csv, counted from 0."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: rows are cells, columns are roles."""

    kind: Literal["paper", "gains"]
    """Raw means beside the paper's, or paired gains over the base in units of its spread."""
    title: str
    caption: str
    dataset: str
    split: Split
    p_mix: float
    columns: list[str]
    rows: list[Row]
    published: str | None = None
    """File in config/published/."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise ValueError("a table needs at least one row and one column.")
        check_rows(self.rows)
        check_share(self.p_mix)

    @property
    def needs_overhead(self) -> bool:
        """Whether a column is filled by the overhead stage."""
        return any(column in OVERHEAD_ROLES for column in self.columns)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure; its name is a key of FIGURES in mixgrpo/report."""

    title: str
    caption: str
    draws: Literal["images", "metrics"]
    """What it is made from: pictures of its cells at the first seed, or their training metrics."""
    rows: list[Row]
    dataset: str | None = None
    split: Split | None = None
    p_mix: float | None = None
    num_prompts: int | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a figure needs at least one row.")
        check_rows(self.rows)
        if self.draws == "images":
            for name in ("dataset", "split", "p_mix", "num_prompts"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name} is missing: a figure of images says which.")
        if self.p_mix is not None:
            check_share(self.p_mix)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One setting tried at several values in several cells, judged where no table looks."""

    title: str
    caption: str
    cells: list[str]
    key: str
    """Dotted setting."""
    values: list[int | float]
    seeds: list[int]
    dataset: str
    split: Split
    p_mix: float
    columns: list[str]

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not (self.cells and self.values and self.seeds and self.columns):
            raise ValueError("a sweep needs cells, values, seeds and columns.")
        check_share(self.p_mix)


def check_rows(rows: list[Row]) -> None:
    """ValueError when a cell has two rows."""
    names = [row.cell for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"rows show {', '.join(twice)} twice. Keep one row a cell.")


def check_share(p_mix: float) -> None:
    """ValueError unless p_mix is a share."""
    if not 0 <= p_mix <= 1:
        raise ValueError(f"p_mix={p_mix} must be in [0, 1].")
