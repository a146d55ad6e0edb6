"""A preset of a small checkpoint, planned from config/ as a reader's own would be, and its jobs in order."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mixgrpo.planning import specs
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.load import load
from mixgrpo.provenance import ROOT
from mixgrpo.stages import embed, generate, prompts, score, table, train
from tests.models.conftest import Small
from tests.models.small import RESOLUTION

TEXTS = ["a fox", "two foxes; one asleep", "the letter q", "rain"]
TUNED = {"flux": "mixgrpo", "sd3": "sd3_mixgrpo"}
BASE = {"flux": "base", "sd3": "base_sd3"}
ONE_ITERATION = {
    "num_iterations": 1,
    "num_prompts": 2,
    "group_size": 4,
    "num_updates": 2,
    "micro_batch": 4,
    "learning_rate": 1e-2,
    "precision": "bf16",
    "sharding": "none",
    "gradient_reduction": "update",
    "gradient_checkpointing": False,
    "lora": None,
}
COLUMNS = ["rollout_nfe", "update_nfe", "colorfulness", "sharpness"]


@dataclass(frozen=True)
class Chain:
    """One base model, one tuned cell; everything below `root`, in the folders that the workflow has."""

    small: Small
    root: Path
    training: Mapping[str, Any]
    """What it trains otherwise than ONE_ITERATION."""
    evaluation: Mapping[str, Any]

    @property
    def tuned(self) -> str:
        """The paper's cell that is trained."""
        return TUNED[self.small.name]

    @property
    def base(self) -> str:
        """The untrained cell of its model."""
        return BASE[self.small.name]

    @cached_property
    def experiment(self) -> Experiment:
        """The paper's config/ with one preset and one table more; nothing else is asked for."""
        config = Path(shutil.copytree(ROOT / "config", self.root / "config"))
        (config / "presets" / "small.yaml").write_text(yaml.safe_dump(self._preset()))
        sheet = yaml.safe_load((config / "tables.yaml").read_text())
        sheet["tables"]["small"] = self._table()
        (config / "tables.yaml").write_text(yaml.safe_dump(sheet, sort_keys=False))
        found = load(config, {"preset": "small"})
        return replace(found, tables={"small": found.tables["small"]}, figures={})

    def _preset(self) -> dict[str, Any]:
        text = self.root / "mine.txt"
        text.write_text("\n".join(TEXTS))
        model = {"path": str(self.small.path), "revision": None, "resolution": RESOLUTION}
        run = {
            "rewards": {"sharpness": 1.0},
            "window": {"size": 2},
            "sampling": {"num_steps": 4},
            "training": ONE_ITERATION | self.training,
        }
        splits = dict.fromkeys(("train", "validation", "test"), len(TEXTS))
        mine = {"name": "mine", "splits": splits, "files": dict.fromkeys(splits, str(text))}
        resolutions = dict.fromkeys(TUNED, RESOLUTION)
        return {
            "based_on": "paper",
            "scale": "a small checkpoint with random weights",
            "models": {self.small.name: model},
            "datasets": {"hpdv2": mine},
            "cells": {self.tuned: run},
            "evaluation": {"num_steps": 4, "batch_size": 4, "resolutions": resolutions}
            | self.evaluation,
        }

    def _table(self) -> dict[str, Any]:
        return {
            "title": "A small table",
            "caption": "Before and after.",
            "dataset": "hpdv2",
            "split": "test",
            "p_mix": 0.8,
            "published": "table01.csv",
            "columns": COLUMNS,
            "rows": [
                {"cell": self.base, "label": "before", "published": 0},
                {"cell": self.tuned, "label": "after", "published": 4},
            ],
        }

    @property
    def results(self) -> Path:
        """Of the preset."""
        return self.root / self.experiment.results

    @property
    def model(self) -> Path:
        """Tuned weights."""
        return self.results / "runs" / self.tuned / "seed0" / "model.safetensors"

    @property
    def settings(self) -> Path:
        """Of the tuned cell."""
        return self._settings(self.tuned)

    def _settings(self, cell: str) -> Path:
        text = specs.settings_json(self.experiment, cell, 0)
        return written(self.results / "runs" / cell / "seed0" / "settings.json", text)

    def make_text(self) -> None:
        """Prompts of the splits that it needs, and their embeddings."""
        dataset = self.experiment.sheet.datasets["hpdv2"]
        for split in ("train", "test"):
            rows = self.results / "prompts" / f"mine_{split}.tsv"
            prompts.run(
                dataset=dataset.name,
                split=split,
                num=dataset.splits[split],
                output=rows,
                file=Path(dataset.files[split]),
            )
            output = self.results / "embeddings" / self.small.name / f"mine_{split}.safetensors"
            precision = self.experiment.sheet.models[self.small.name].text_precision
            embed.run(
                model=self.small.name,
                base=self.small.path,
                prompts=rows,
                output=output,
                precision=precision,
            )

    def arguments(self) -> dict[str, Path]:
        """Of the stage `train`; its text is made."""
        self.make_text()
        return {
            "settings": self.settings,
            "prompts": self.results / "prompts" / "mine_train.tsv",
            "embeddings": self.results / "embeddings" / self.small.name / "mine_train.safetensors",
            "checkpoints": self.root / "checkpoints",
            "model": self.model,
            "metrics": self.model.with_name("metrics.jsonl"),
        }

    def train(self) -> Path:
        """The tuned weights."""
        train.run(**self.arguments())
        return self.model

    def generate(self, cell: str) -> Path:
        """Index of the pictures that the tables ask for."""
        index = self.results / "images" / cell / "seed0" / "index.json"
        generate.run(
            settings=self._settings(cell),
            evaluation=written(
                index.with_name("evaluation.json"), specs.evaluation_json(self.experiment, cell)
            ),
            model=self.model if cell == self.tuned else None,
            prompts=self.results / "prompts",
            embeddings=self.results / "embeddings" / self.small.name,
            index=index,
        )
        return index

    def score(self, cell: str) -> None:
        """By the preset's rewards that need no weights."""
        index = self.results / "scores" / cell / "seed0" / "index.json"
        plan = specs.rewards_json(self.experiment)
        rewards = {name: reward for name, reward in yaml.safe_load(plan).items() if name in COLUMNS}
        score.run(
            images=self.generate(cell),
            rewards=written(self.results / "scores" / "rewards.json", specs.dump(rewards)),
            index=index,
        )

    def table(self) -> pd.DataFrame:
        """The table's csv; its markdown stands beside it."""
        path = self.results / "tables" / "small.json"
        table.run(
            spec=written(path, specs.table_json(self.experiment, "small")),
            scores=self.results / "scores",
            csv=path.with_suffix(".csv"),
            md=path.with_suffix(".md"),
            tex=path.with_suffix(".tex"),
            html=path.with_suffix(".html"),
        )
        return pd.read_csv(path.with_suffix(".csv"))


def chain(
    small: Small, root: Path, *, evaluation: Mapping[str, Any] | None = None, **training: Any
) -> Chain:
    """In the folder `root`, made if it is not there."""
    root.mkdir(exist_ok=True)
    return Chain(small, root, training, evaluation or {})


def written(path: Path, text: str) -> Path:
    """The path, with this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
