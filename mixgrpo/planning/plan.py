"""What the rules of the workflow ask the experiment: files, options and digests, as functions of wildcards.

Here are the names of everything below results/ that one rule reads and another writes.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mixgrpo.config import Settings
from mixgrpo.planning import specs
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.sheets import Table
from mixgrpo.provenance import planned_code, stage_modules

Wildcards = Any
"""Snakemake's object: an attribute for each wildcard of the rule."""


def code(verb: str, **names: Any) -> str:
    """The code that a job of `verb` is planned with; the job refuses any other."""
    return planned_code(*stage_modules(verb, **names))


def use_own_python() -> None:
    """Jobs say `python`: let it be the one that plans them, whether or not its environment is activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


class Plan:
    """Each method answers one question of one rule."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.results = experiment.results
        sheet = experiment.sheet
        self.models = {model.name: model.path for model in sheet.models.values()}
        self.rewards = {reward.name: reward.path for reward in sheet.reward_models.values()}
        self.splits = {dataset.name: dataset.splits for dataset in sheet.datasets.values()}

    # base.smk, prompts.smk

    def pretrain_code(self, wildcards: Wildcards) -> str:
        """Digest of what trains this component."""
        return code("pretrain", component=wildcards.component)

    def num_prompts(self, wildcards: Wildcards) -> int:
        """How many prompts of this split."""
        return self.splits[wildcards.dataset][wildcards.split]

    def base_directory(self, wildcards: Wildcards) -> str:
        """Folder of the base model."""
        return self.models[wildcards.model]

    def text_encoders(self, wildcards: Wildcards) -> list[str]:
        """Weights that embed prompts."""
        path = self.models[wildcards.model]
        return [f"{path}/{part}/model.safetensors" for part in ("text_encoder", "text_encoder_2")]

    def embed_code(self, wildcards: Wildcards) -> str:
        """Digest of what embeds them."""
        return code("embed", models=[wildcards.model])

    # train.smk

    def settings(self, wildcards: Wildcards) -> str:
        """settings.json of one run."""
        return specs.settings_json(self.experiment, wildcards.cell, int(wildcards.seed))

    def training_prompts(self, wildcards: Wildcards) -> str:
        """Prompts that the cell trains on."""
        return f"{self.results}/prompts/{self._settings(wildcards).dataset}_train.tsv"

    def training_embeddings(self, wildcards: Wildcards) -> str:
        """Their embeddings."""
        return f"{self.embeddings(wildcards)}/{self._settings(wildcards).dataset}_train.safetensors"

    def base(self, wildcards: Wildcards) -> list[str]:
        """Weights of the cell's base model, so that a changed model is seen."""
        return self._base_files([self._settings(wildcards).model.name])

    def trained_rewards(self, wildcards: Wildcards) -> list[str]:
        """Weights of the rewards that the cell trains on."""
        return self._reward_files(self._settings(wildcards).rewards)

    # generate.smk, score.smk

    def evaluation(self, wildcards: Wildcards) -> str:
        """evaluation.json of one run."""
        return specs.evaluation_json(self.experiment, wildcards.cell)

    def tuned_model(self, wildcards: Wildcards) -> list[str]:
        """What training wrote; nothing for the untrained cell."""
        run = f"{self.results}/runs/{wildcards.cell}/seed{wildcards.seed}"
        return [f"{run}/model.safetensors"] if self.experiment.cells[wildcards.cell].trained else []

    def tuned_option(self, wildcards: Wildcards) -> str:
        """The option that names it."""
        return "".join(f"--model {path}" for path in self.tuned_model(wildcards))

    def evaluation_prompts(self, wildcards: Wildcards) -> list[str]:
        """Prompts of every set that the cell is evaluated on."""
        return [f"{self.results}/prompts/{stem}.tsv" for stem in self._stems(wildcards)]

    def evaluation_embeddings(self, wildcards: Wildcards) -> list[str]:
        """Their embeddings."""
        folder = self.embeddings(wildcards)
        return [f"{folder}/{stem}.safetensors" for stem in self._stems(wildcards)]

    def embeddings(self, wildcards: Wildcards) -> str:
        """Folder of the embeddings by the cell's base model."""
        return f"{self.results}/embeddings/{self._settings(wildcards).model.name}"

    def generate_code(self, wildcards: Wildcards) -> str:
        """Digest of what generates."""
        return code("generate", models=[self._settings(wildcards).model.name])

    def scored_rewards(self, wildcards: Wildcards) -> list[str]:
        """Weights of every reward of the preset."""
        return self._reward_files(self.rewards)

    def score_code(self, wildcards: Wildcards) -> str:
        """Digest of the scorer and of every reward."""
        return code("score", rewards=self.rewards)

    # overhead.smk: all rows of a table train on the first one's prompts

    def overhead_settings(self, wildcards: Wildcards) -> list[str]:
        """Settings of each trained row, at its first seed."""
        cells = self._trained_rows(wildcards)
        seeds = [self.experiment.cells[cell].seeds[0] for cell in cells]
        return [
            f"{self.results}/runs/{cell}/seed{seed}/settings.json"
            for cell, seed in zip(cells, seeds, strict=True)
        ]

    def overhead_prompts(self, wildcards: Wildcards) -> str:
        """Prompts that the rows train on."""
        return f"{self.results}/prompts/{self._row_settings(wildcards)[0].dataset}_train.tsv"

    def overhead_embeddings(self, wildcards: Wildcards) -> str:
        """Their embeddings."""
        first = self._row_settings(wildcards)[0]
        return f"{self.results}/embeddings/{first.model.name}/{first.dataset}_train.safetensors"

    def overhead_weights(self, wildcards: Wildcards) -> list[str]:
        """Weights of all models and rewards in the rows."""
        rows = self._row_settings(wildcards)
        rewards = [name for row in rows for name in row.rewards]
        return self._base_files(row.model.name for row in rows) + self._reward_files(rewards)

    def overhead_code(self, wildcards: Wildcards) -> str:
        """Digest of what measures."""
        rows = self._row_settings(wildcards)
        rewards = [name for row in rows for name in row.rewards]
        return code("overhead", models=[row.model.name for row in rows], rewards=rewards)

    # report.smk

    def table_spec(self, wildcards: Wildcards) -> str:
        """The JSON that says what a table shows."""
        return specs.table_json(self.experiment, wildcards.table)

    def table_scores(self, wildcards: Wildcards) -> list[str]:
        """Scores of every run in it, and of the base where gains are over it."""
        runs = self.experiment.runs(self.experiment.cells_of_table(wildcards.table))
        return [f"{self.results}/scores/{cell}/seed{seed}/index.json" for cell, seed in runs]

    def table_overhead(self, wildcards: Wildcards) -> list[str]:
        """The measurements that it shows, if it does."""
        path = f"{self.results}/overhead/{wildcards.table}.json"
        return [path] if self._table(wildcards).needs_overhead else []

    def overhead_option(self, wildcards: Wildcards) -> str:
        """The option that names them."""
        return "".join(f"--overhead {path}" for path in self.table_overhead(wildcards))

    def table_published(self, wildcards: Wildcards) -> list[str]:
        """The published values that stand beside ours."""
        name = self._table(wildcards).published
        return [f"{self.experiment.config}/published/{name}"] if name else []

    def figure_spec(self, wildcards: Wildcards) -> str:
        """The JSON that says what a figure shows."""
        return specs.figure_json(self.experiment, wildcards.figure)

    def figure_files(self, wildcards: Wildcards) -> list[str]:
        """What the figure is drawn from, as its spec names it."""
        spec = json.loads(self.figure_spec(wildcards))
        files = [file for cell in spec["cells"] for file in cell.get("metrics", [])]
        files += [cell["images"] for cell in spec["cells"] if "images" in cell]
        return files + [spec["prompts"]] * (spec["prompts"] is not None)

    def figure_code(self, wildcards: Wildcards) -> str:
        """Digest of what draws it."""
        return code("figure", figure=wildcards.figure)

    def _settings(self, wildcards: Wildcards) -> Settings:
        return self.experiment.cells[wildcards.cell].settings

    def _table(self, wildcards: Wildcards) -> Table:
        return self.experiment.tables[wildcards.table]

    def _stems(self, wildcards: Wildcards) -> list[str]:
        sets = self.experiment.image_sets(wildcards.cell)
        return sorted({f"{dataset}_{split}" for dataset, split, _ in sets})

    def _trained_rows(self, wildcards: Wildcards) -> list[str]:
        cells = [row.cell for row in self._table(wildcards).rows]
        return [cell for cell in cells if self.experiment.cells[cell].trained]

    def _row_settings(self, wildcards: Wildcards) -> list[Settings]:
        return [self.experiment.cells[cell].settings for cell in self._trained_rows(wildcards)]

    def _base_files(self, names: Iterable[str]) -> list[str]:
        parts = ("transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
        return [
            f"{self.models[n]}/{part}.safetensors" for n in sorted(set(names)) for part in parts
        ]

    def _reward_files(self, names: Iterable[str]) -> list[str]:
        paths = (self.rewards[name] for name in sorted(set(names)))
        return [f"{path}/model.safetensors" for path in paths if path]
