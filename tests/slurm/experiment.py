"""Preset smoke, small enough to go through Slurm within a test: a table, a figure, a cell, its base, two rewards."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.slurm.cluster import Cluster
from tests.workflow.checkout import Checkout

RESULTS = "results/smoke"
ITERATIONS = 10
SHOWN = {
    "caption": "What one method teaches.",
    "dataset": "hpdv2",
    "split": "test",
    "p_mix": 1.0,
    "rows": [{"cell": "base", "label": "FLUX"}, {"cell": "mixgrpo", "label": "MixGRPO"}],
}
COLUMNS = ["hps_v2_1", "colorfulness"]
TABLE = {"title": "A table", **SHOWN, "columns": COLUMNS}
FIGURE = {"title": "A figure", **SHOWN, "draw": "image_grid", "reads": ["images"], "num_prompts": 2}
LITTLE: dict[str, Any] = {"gpu": 1, "mem_mb": 1500, "runtime": 60}


class Experiment(Checkout):
    """A copy of the workflow with that configuration, from which jobs are submitted to a cluster."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        root.mkdir()
        super().__init__(root)
        self.cluster = cluster
        reward = Path(__file__).with_name("paced_reward.py")
        shutil.copy(reward, root / "mixgrpo/rewards/paced.py")
        # What a person fills in.
        profile = "workflow/profiles/slurm/profile.yaml"
        self.edit(profile, r"slurm_partition: \S+", "slurm_partition: batch")
        self.rewrite("config/tables.yaml", shrink_tables)
        self.rewrite("config/presets/tiny.yaml", shrink_tiny)
        self.rewrite("config/presets/smoke.yaml", shrink_smoke)
        self.rewrite("config/cells.yaml", shrink_cells)
        self.rewrite("config/sweep.yaml", shrink_sweep)
        self.rewrite("config/figures.yaml", lambda _: {"figure": FIGURE})

    @property
    def environment(self) -> dict[str, str]:
        return self.cluster.known_to(super().environment)

    def rewrite(self, file: str, change: Any) -> None:
        """Change what a YAML file says."""
        path = self.root / file
        path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text()))))

    def copy(self, root: Path, *, without: tuple[str, ...] = ()) -> "Experiment":
        """The same in another folder, with its results."""
        own = Experiment.__new__(Experiment)
        own.root, own.cluster = root, self.cluster
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns(*without))
        return own

    def folder(self, cell: str) -> Path:
        """Of the results of one training."""
        return self.root / RESULTS / "runs" / cell / "seed0"

    def log(self, cell: str) -> str:
        """What one training says."""
        return text(self.root / f"logs/smoke/train/{cell}/seed0.log")

    def pause(self, seconds: float) -> None:
        """From now on, every iteration takes that much longer."""
        (self.root / "pause").write_text(str(seconds))


def shrink_tables(sheet: Any) -> Any:
    columns = {name: sheet["columns"][name] for name in COLUMNS}
    return {"columns": columns, "tables": {"table": TABLE}}


def shrink_tiny(preset: Any) -> Any:
    played = {**preset["reward_models"], "colorfulness": {"name": "paced"}}
    return {
        **preset,
        "models": {"flux": preset["models"]["flux"]},
        "reward_models": {role: played[role] for role in COLUMNS},
        "rewards": dict.fromkeys(COLUMNS, 1.0),
        "cells": {},
    }


def shrink_smoke(preset: Any) -> Any:
    steps = ("vae_steps", "flow_steps", "sd3_steps", "clip_steps", "judge_steps")
    train = {
        "gpu": 4,
        "nodes": 2,
        "mem_mb": 2000,
        "runtime": 60,
        "launch": "workflow/scripts/launch.sh 2 2",
    }
    return {
        **preset,
        "pretrain": {"num_pictures": 120, **dict.fromkeys(steps, 3)},
        "training": {
            **preset["training"],
            "num_iterations": ITERATIONS,
            "window_clock": 30,
            "num_prompts": 4,
            "checkpoint_interval": 1,
        },
        "cells": {},
        "jobs": {"embed": LITTLE, "train": train, "generate": LITTLE},
    }


def shrink_cells(cells: Any) -> Any:
    return {name: cells[name] for name in ("base", "mixgrpo", "flash")}


def shrink_sweep(sweep: Any) -> Any:
    return {**sweep, "cells": ["mixgrpo"], "columns": COLUMNS, "split": "test"}


def text(log: Path) -> str:
    """So far; a character that is half written is none."""
    return log.read_text(errors="replace") if log.exists() else ""


def rows(metrics: Path) -> list[dict[str, float]]:
    """What training measured, apart from time."""
    found = map(json.loads, metrics.read_text().splitlines())
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


def same_run(a: Path, b: Path) -> bool:
    """Whether two trainings ended in the same weights, after the same iterations, bit for bit."""
    weights = [(folder / "model.safetensors").read_bytes() for folder in (a, b)]
    return weights[0] == weights[1] and rows(a / "metrics.jsonl") == rows(b / "metrics.jsonl")
