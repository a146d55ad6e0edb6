"""What a figure shows: `figures/{figure}.json`, which the workflow writes from config/figures.yaml.

    {"name": "figure04", "draw": "image_grid", "title": "...", "caption": "...", "preset": "tiny",
     "scale": "...", "seeds": [0], "base": "base", "dataset": "tiny_hpd", "split": "test", "p_mix": 1.0,
     "num_prompts": 8, "prompts": "results/tiny/prompts/tiny_hpd_test.tsv",
     "rewards": {"tiny_hps": "HPS-v2.1", ...}, "scores": null, "overhead": null, "spread": null,
     "cells": [{"cell": "mixgrpo", "label": "MixGRPO", "seeds": [0], "trained": ["tiny_hps"],
                "p_mix": 1.0, "images": "results/tiny/images/mixgrpo/seed0/index.json"}, ...]}

`draw` is the file of mixgrpo/report/ that draws it. What a figure does not read is null or left out:
of a cell its images, its metrics, its settings; of all the scores, the overhead, the spread. `rewards`:
the paper's name of what each reward stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixgrpo.config import STRICT
from mixgrpo.errors import UserError
from mixgrpo.report.inputs import read_json
from mixgrpo.report.words import seed_words


@dataclass(frozen=True, kw_only=True)
class FigureCell:
    """One cell of the paper's grid, as one row or curve."""

    cell: str
    label: str
    seeds: tuple[int, ...] = (0,)
    images: str | None = None
    """images/{cell}/seed{seed}/index.json, of the first seed."""
    p_mix: float | None = None
    """Of its images: its own or the figure's, 0 for an untrained cell."""
    metrics: tuple[str, ...] = ()
    """runs/{cell}/seed{seed}/metrics.jsonl, one for each seed."""
    settings: str | None = None
    """runs/{cell}/seed{seed}/settings.json, of the first seed."""
    trained: tuple[str, ...] = ()
    """Names of the rewards it was trained on; none for an untrained cell."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """A figure, complete: nothing about it is looked up elsewhere but pictures and metrics."""

    name: str
    title: str
    caption: str
    preset: str
    scale: str
    seeds: tuple[int, ...]
    cells: tuple[FigureCell, ...]
    draw: str
    base: str
    """The untrained cell that gains are measured from."""
    dataset: str | None = None
    split: str | None = None
    p_mix: float | None = None
    num_prompts: int | None = None
    prompts: str | None = None
    rewards: dict[str, str] = field(default_factory=dict)
    scores: str | None = None
    """scores/ of the preset."""
    overhead: str | None = None
    """overhead/{model}.json."""
    spread: str | None = None
    """spread/{model}.json."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError("cells is empty: a figure shows at least one.")
        if self.num_prompts is not None and self.num_prompts < 1:
            raise ValueError(f"num_prompts={self.num_prompts}: a figure shows at least one.")

    def needed(self, *names: str) -> None:
        """UserError if one of the fields `names` is null though this figure needs it."""
        absent = [name for name in names if getattr(self, name) is None]
        if absent:
            raise UserError(
                f"figure {self.name}, drawn by {self.draw}, needs {', '.join(absent)}, which its spec "
                f"leaves out. Set it in {self.name} of config/figures.yaml, or add it to `reads` there."
            )

    def origin(self, seeds: Sequence[int] | None = None) -> str:
        """What was trained, at which scale, with which of the `seeds`: all unless told."""
        scale = self.scale.removeprefix(f"{self.preset}: ")
        return (
            f"preset {self.preset} ({scale}); {seed_words(self.seeds if seeds is None else seeds)}"
        )


def read_figure_spec(path: Path) -> FigureSpec:
    """The spec at `path`. UserError names every bad key."""
    return read_json(
        path, FigureSpec, remedy=f"`snakemake {path}` writes it from config/figures.yaml"
    )
