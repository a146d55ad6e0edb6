"""What the rules of the workflow ask the experiment: files, options and digests, as functions of wildcards.

Here are the names of everything below results/ that one rule reads and another writes.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mixgrpo.config import Settings
from mixgrpo.errors import UserError
from mixgrpo.planning import specs
from mixgrpo.planning.checking import unknown
from mixgrpo.planning.experiment import Cell, Experiment
from mixgrpo.provenance import planned_code, stage_modules

Wildcards = Any
"""Snakemake's object: an attribute for each wildcard of the rule."""
Named = TypeVar("Named")

TWO = ("text_encoder", "text_encoder_2")
TEXT_ENCODERS = {"sd3": (*TWO, "text_encoder_3")}
"""Folders of the text encoders, of the models that do not have two."""
WEIGHTS = (".safetensors", ".pt", ".bin")
"""What files of weights end in."""


def code(verb: str, **names: Any) -> str:
    """The code that a job of `verb` is planned with; the job refuses any other."""
    return planned_code(*stage_modules(verb, **names))


def known(name: str, found: Mapping[str, Named]) -> Named:
    """What is called `name`; UserError when a person asked for a file of something that there is not."""
    if name not in found:
        raise UserError(unknown(name, found))
    return found[name]


def use_own_python() -> None:
    """Jobs say `python`: let it be the one that plans them, whether or not its environment is activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


class Plan:
    """Each method answers one question of one rule."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.results = experiment.results
        sheet = experiment.sheet
        self.models = {model.name: model for model in sheet.models.values()}
        self.rewards = {reward.name: reward.path for reward in sheet.reward_models.values()}
        self.timed_models = [name for name in self.models if experiment.timed_cells(name)]
        self.splits = {dataset.name: dataset.splits for dataset in sheet.datasets.values()}
        self.files = {dataset.name: dataset.files for dataset in sheet.datasets.values()}

    # What a job needs. Callables of wildcards, for each rule: a rule may need other things for each model.

    def resource(self, rule: str, key: str) -> Callable[[Wildcards], int | str | None]:
        """One resource of the jobs of a rule, as the preset's `jobs` have it; None is none.

        nodes, tasks, tasks_per_gpu, mpi and slurm_extra are for Slurm. On several nodes the job itself starts one
        launcher on each, by srun. Before its time is up it gets SIGTERM, soon enough for an iteration and a checkpoint.
        """

        def of(wildcards: Wildcards) -> int | str | None:
            job = self.experiment.job(rule, dict(wildcards))
            several = job.nodes > 1
            needs: dict[str, int | str | None] = {
                "gpu": job.gpu,
                "mem_mb": job.mem_mb,
                "runtime": job.runtime,
                "launch": job.launch,
                "nodes": job.nodes if several else None,
                "tasks": job.nodes if several else None,
                "tasks_per_gpu": 0 if several else None,
                "mpi": "srun" if several else None,
                "slurm_extra": f"--signal=TERM@{job.seconds_to_stop}",
            }
            return needs[key]

        return of

    # base.smk, prompts.smk

    def pretrain_code(self, wildcards: Wildcards) -> str:
        """Digest of what trains this component."""
        return code("pretrain", component=wildcards.component)

    def num_prompts(self, wildcards: Wildcards) -> int:
        """How many prompts of this split."""
        return self.splits[wildcards.dataset][wildcards.split]

    def prompts_file(self, wildcards: Wildcards) -> list[str]:
        """The text file that they are taken from, if the preset names one."""
        path = self.files[wildcards.dataset].get(wildcards.split)
        return [] if path is None else [path]

    def prompts_option(self, wildcards: Wildcards) -> str:
        """The option that names it."""
        return "".join(f"--file {shlex.quote(path)}" for path in self.prompts_file(wildcards))

    def base_options(self, wildcards: Wildcards) -> str:
        """The options that say where the base model's text encoders are, and in which precision they compute."""
        model = self.models[wildcards.model]
        revision = f"--revision {model.revision} " if model.revision else ""
        return f"--base {shlex.quote(model.path)} {revision}--precision {model.text_precision}"

    def text_encoders(self, wildcards: Wildcards) -> list[str]:
        """Weights that embed prompts."""
        parts = TEXT_ENCODERS.get(wildcards.model, TWO)
        return self._model_files(wildcards.model, {part: "model" for part in parts})

    def embed_code(self, wildcards: Wildcards) -> str:
        """Digest of what embeds them."""
        return code("embed", models=[wildcards.model])

    # train.smk

    def settings(self, wildcards: Wildcards) -> str:
        """settings.json of one run."""
        self._cell(wildcards)
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
        self._cell(wildcards)
        return specs.evaluation_json(self.experiment, wildcards.cell)

    def tuned_model(self, wildcards: Wildcards) -> list[str]:
        """What training wrote; nothing for the untrained cell."""
        run = f"{self.results}/runs/{wildcards.cell}/seed{wildcards.seed}"
        return [f"{run}/model.safetensors"] if self._cell(wildcards).trained else []

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

    # overhead.smk: all timed cells of a model train on the first one's prompts; spread.smk

    def overhead_settings(self, wildcards: Wildcards) -> list[str]:
        """Settings of each, at its first seed."""
        runs = {cell: self.experiment.cells[cell].seeds[0] for cell in self._timed(wildcards)}
        return [
            f"{self.results}/runs/{cell}/seed{seed}/settings.json" for cell, seed in runs.items()
        ]

    def overhead_prompts(self, wildcards: Wildcards) -> str:
        """Prompts that they train on."""
        return f"{self.results}/prompts/{self._timed_settings(wildcards)[0].dataset}_train.tsv"

    def overhead_embeddings(self, wildcards: Wildcards) -> str:
        """Their embeddings."""
        first = self._timed_settings(wildcards)[0]
        return f"{self.results}/embeddings/{first.model.name}/{first.dataset}_train.safetensors"

    def overhead_weights(self, wildcards: Wildcards) -> list[str]:
        """Weights of the model and of all rewards."""
        rewards = [name for run in self._timed_settings(wildcards) for name in run.rewards]
        return self._base_files([wildcards.model]) + self._reward_files(rewards)

    def overhead_code(self, wildcards: Wildcards) -> str:
        """Digest of what measures."""
        rewards = [name for run in self._timed_settings(wildcards) for name in run.rewards]
        return code("overhead", models=[wildcards.model], rewards=rewards)

    def spread_settings(self, wildcards: Wildcards) -> str:
        """Settings of the run whose schedule and noise are measured: the first that is shown with it."""
        cell = self._spread_cell(wildcards)
        return (
            f"{self.results}/runs/{cell}/seed{self.experiment.cells[cell].seeds[0]}/settings.json"
        )

    def spread_prompts(self, wildcards: Wildcards) -> str:
        """Prompts that it trains on."""
        settings = self.experiment.cells[self._spread_cell(wildcards)].settings
        return f"{self.results}/prompts/{settings.dataset}_train.tsv"

    def spread_embeddings(self, wildcards: Wildcards) -> str:
        """Their embeddings."""
        settings = self.experiment.cells[self._spread_cell(wildcards)].settings
        folder = f"{self.results}/embeddings/{settings.model.name}"
        return f"{folder}/{settings.dataset}_train.safetensors"

    def base_weights(self, wildcards: Wildcards) -> list[str]:
        """Weights of this model."""
        return self._base_files([wildcards.model])

    def spread_code(self, wildcards: Wildcards) -> str:
        """Digest of what measures."""
        return code("spread", models=[wildcards.model])

    def _cell(self, wildcards: Wildcards) -> Cell:
        return known(wildcards.cell, self.experiment.cells)

    def _settings(self, wildcards: Wildcards) -> Settings:
        return self._cell(wildcards).settings

    def _stems(self, wildcards: Wildcards) -> list[str]:
        sets = self.experiment.image_sets(wildcards.cell)
        return sorted({f"{dataset}_{split}" for dataset, split, _ in sets})

    def _timed(self, wildcards: Wildcards) -> list[str]:
        return self.experiment.timed_cells(wildcards.model)

    def _timed_settings(self, wildcards: Wildcards) -> list[Settings]:
        return [self.experiment.cells[cell].settings for cell in self._timed(wildcards)]

    def _spread_cell(self, wildcards: Wildcards) -> str:
        return self.experiment.spread_cell(wildcards.model)

    def _base_files(self, names: Iterable[str]) -> list[str]:
        parts = dict.fromkeys(("transformer", "vae"), "diffusion_pytorch_model")
        return [file for name in sorted(set(names)) for file in self._model_files(name, parts)]

    def _model_files(self, name: str, parts: Mapping[str, str]) -> list[str]:
        """Weights of the parts of a model, by folder and file name; a commit on the hub never changes."""
        model = self.models[name]
        if model.revision is not None:
            return []
        path = Path(model.path)
        if path.is_relative_to(self.results):
            return [f"{path}/{part}/{file}.safetensors" for part, file in parts.items()]
        found = [file for part in parts for file in sorted(path.glob(f"{part}/*.safetensors"))]
        return [str(file) for file in found] or [model.path]

    def _reward_files(self, names: Iterable[str]) -> list[str]:
        paths = (self.rewards[name] for name in sorted(set(names)))
        return [file for path in paths if path for file in self._weights_at(path)]

    def _weights_at(self, path: str) -> list[str]:
        """What the workflow makes has one file; of weights that a person names, all files that are there."""
        if Path(path).is_relative_to(self.results):
            return [f"{path}/model.safetensors"]
        files = sorted(str(file) for file in Path(path).glob("*") if file.suffix in WEIGHTS)
        return files or [path]
