"""What stands in config/ beside the settings of a run: presets, cells, tables, figures, the sweep.

Frozen dataclasses that say what a person may write; `mixgrpo.planning.experiment` resolves them. Torch-free.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from mixgrpo.config import STRICT, ModelConfig, check_options
from mixgrpo.planning.cost_sheets import JobSheet, OverheadSheet

METRIC_ROLES = ("rollout_nfe", "update_nfe")
"""Columns that the metrics of training fill."""
TIMED_ROLES = ("iteration_seconds", "image_seconds")
"""Columns that the overhead stage fills; every column that is neither is a reward."""
SWEEP = "sweep"
"""The table that sweep.yaml describes."""
Split = Literal["train", "validation", "test"]
Read = Literal["images", "metrics", "scores", "overhead", "spread", "settings"]


@dataclass(frozen=True, kw_only=True)
class DatasetSheet:
    """One of the preset's datasets: what plays the paper's role."""

    name: str
    """A key of SOURCES in mixgrpo/stages/prompts.py; any name where `files` say the prompts."""
    splits: dict[Split, int]
    """Number of prompts of each split."""
    files: dict[Split, str] = field(default_factory=dict)
    """Text files of one's own, for each split, with a prompt on each line."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for split, count in self.splits.items():
            if count < 1:
                raise ValueError(f"splits.{split}={count}: wanted at least 1 prompt.")
        if self.files and self.files.keys() != self.splits.keys():
            raise ValueError("files: give one for each of the splits, or none.")


@dataclass(frozen=True, kw_only=True)
class RewardSheet:
    """One of the preset's reward models: what plays the paper's role."""

    name: str
    """File name in mixgrpo/rewards/."""
    path: str | None = None
    """Its weights; null for a measure without weights, or for the checkpoint that the reward names itself."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword-only arguments of `load` in the reward's file."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        check_options(self.options)


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
    resolutions: dict[str, int] = field(default_factory=dict)
    """Height and width of the pictures, by base model; that of training where a model is not named."""
    shifts: dict[str, float] = field(default_factory=dict)
    """By base model, in place of `shift`."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("num_steps", "shift", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"evaluation.{name}={getattr(self, name)} must be positive.")
        for model, pixels in self.resolutions.items():
            if pixels <= 0:
                raise ValueError(f"evaluation.resolutions.{model}={pixels} must be positive.")


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
    overhead: OverheadSheet = field(default_factory=OverheadSheet)
    jobs: dict[str, JobSheet] = field(default_factory=dict)
    """What a job needs, by rule or `rule model`."""
    seconds: dict[str, float | None] = field(default_factory=dict)
    """Seconds of a job, by rule or `rule cell`: announced, used for nothing else; null where nobody knows."""

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
    """A cell as a table or figure shows it, or one cell for each experiment of a cross-dataset table."""

    label: str
    cell: str | None = None
    cells: list[str] = field(default_factory=list)
    """In place of `cell`, where the table has views."""
    published: int | None = None
    """Its row in the published csv, counted from 0."""
    p_mix: float | None = None
    """In place of the table's or figure's."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if (self.cell is None) != bool(self.cells):
            raise ValueError(
                f"the row {self.label!r} names its `cell`, or its `cells`, one a view."
            )
        if self.p_mix is not None:
            check_share(self.p_mix)

    @property
    def names(self) -> list[str]:
        """Its cells, one for each experiment."""
        return self.cells if self.cell is None else [self.cell]


@dataclass(frozen=True, kw_only=True)
class View:
    """One test set that all rows of a table are shown on."""

    title: str
    dataset: str
    cell: int = 0
    """Which of a row's cells."""
    published: str = ""
    """What its columns in the published csv begin with."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: rows are cells, columns are roles."""

    title: str
    caption: str
    split: Split
    p_mix: float
    """Of the grid beside the paper's."""
    columns: list[str]
    rows: list[Row]
    dataset: str | None = None
    views: list[View] = field(default_factory=list)
    """In place of `dataset`: several test sets."""
    gains_p_mix: float = 1.0
    """Of the grid of paired gains: the tuned model alone."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Columns under a heading of their own."""
    published: str | None = None
    """File in config/published/."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise ValueError("a table needs at least one row and one column.")
        if (self.dataset is None) != bool(self.views):
            raise ValueError("a table names its `dataset`, or its `views`.")
        if any(view.cell < 0 for view in self.views):
            raise ValueError("views: cell counts the cells of a row from 0.")
        wanted = 1 + max(view.cell for view in self.test_sets)
        for row in self.rows:
            if len(row.names) != wanted:
                raise ValueError(
                    f"the row {row.label!r} names {len(row.names)} cells, not {wanted}."
                )
        for name in (name for columns in self.groups.values() for name in columns):
            if name not in self.columns:
                raise ValueError(f"groups: {name!r} is no column of this table.")
        check_rows(self.rows)
        check_share(self.p_mix)
        check_share(self.gains_p_mix)

    @property
    def test_sets(self) -> list[View]:
        """Its views; the only one, without a title, where it has a dataset."""
        return self.views or [View(title="", dataset=str(self.dataset))]

    @property
    def needs_metrics(self) -> bool:
        """Whether a column is counted in training."""
        return any(column in METRIC_ROLES for column in self.columns)

    @property
    def needs_overhead(self) -> bool:
        """Whether a column is filled by the overhead stage."""
        return any(column in TIMED_ROLES for column in self.columns)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure."""

    draw: str
    """File of mixgrpo/report/ whose `draw` makes it."""
    reads: list[Read]
    """What it is made from: pictures of its cells at the first seed, training metrics, ..."""
    title: str
    caption: str
    rows: list[Row]
    dataset: str | None = None
    split: Split | None = None
    p_mix: float | None = None
    num_prompts: int | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.rows or not self.reads:
            raise ValueError("a figure needs at least one row, and reads something.")
        for row in self.rows:
            if row.cell is None:
                raise ValueError(f"the row {row.label!r} of a figure names one `cell`.")
        needed = ("dataset", "split", "p_mix") if {"images", "scores"} & {*self.reads} else ()
        for name in (*needed, *(["num_prompts"] if "images" in self.reads else [])):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing: a figure of images or scores says which.")
        check_rows(self.rows)
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
    """ValueError when a cell has two rows at one p_mix."""
    names = [(*row.names, row.p_mix) for row in rows]
    twice = sorted({str(name[0]) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"rows show {', '.join(twice)} twice. Keep one row a cell.")


def check_share(p_mix: float) -> None:
    """ValueError unless p_mix is a share."""
    if not 0 <= p_mix <= 1:
        raise ValueError(f"p_mix={p_mix} must be in [0, 1].")
