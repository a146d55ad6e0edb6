"""A barely trained tiny world on disk, made once per test session by the stages that users run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mixgrpo.config import Settings, canonical, parse
from mixgrpo.stages import embed, pretrain, prompts

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu need one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


SD3 = {"sd3": {"guidance": 2.0, "schedule": "sd3"}}
REWARDS = ("tiny_hps", "tiny_image_reward")


@dataclass(frozen=True)
class World:
    """Paths of a results folder with a base model, two rewards, prompts and embeddings."""

    root: Path

    model: str = "flux"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts" / "tiny_hpd_train.tsv"

    @property
    def embeddings(self) -> Path:
        return self.root / "embeddings" / self.model / "tiny_hpd_train.safetensors"

    def settings(self, **overrides) -> Settings:
        data = {
            "preset": "smoke",
            "seed": 0,
            "dataset": "tiny_hpd",
            "model": {
                "name": self.model,
                "path": str(self.root / "models" / self.model),
                "resolution": 32,
                **SD3.get(self.model, {}),
            },
            "rewards": {name: {"path": str(self.root / "models" / name)} for name in REWARDS},
            "training": {
                "num_iterations": 6,
                "window_clock": 50,
                "num_prompts": 4,
                "group_size": 4,
                "num_updates": 2,
                "micro_batch": 16,
                "learning_rate": 1e-3,
                "clip_range": 1e-3,
                "precision": "no",
                "checkpoint_interval": 2,
            },
        }
        for key, value in overrides.items():
            data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
        return parse(data, where="test")

    def write_settings(self, path: Path, **overrides) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(canonical(self.settings(**overrides)))
        return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    config = root / "pretrain.json"
    config.write_text(
        json.dumps(
            {
                "num_pictures": 120,
                "vae_steps": 3,
                "flow_steps": 3,
                "sd3_steps": 3,
                "clip_steps": 3,
                "judge_steps": 3,
            }
        )
    )
    for component in ("flux", *REWARDS):
        pretrain.run(settings=config, component=component, output=root / "models" / component)
    made = World(root)
    for split in ("train", "test"):
        tsv = root / "prompts" / f"tiny_hpd_{split}.tsv"
        prompts.run(dataset="tiny_hpd", split=split, num=8, output=tsv)
        embed_split(made, split)
    return made


@pytest.fixture(scope="session")
def sd3_world(world: World) -> World:
    """The same world with its second base model."""
    settings, output = world.root / "pretrain.json", world.root / "models" / "sd3"
    pretrain.run(settings=settings, component="sd3", output=output)
    made = World(world.root, "sd3")
    for split in ("train", "test"):
        embed_split(made, split)
    return made


def embed_split(made: World, split: str) -> None:
    embed.run(
        model=made.model,
        base=made.root / "models" / made.model,
        prompts=made.root / "prompts" / f"tiny_hpd_{split}.tsv",
        output=made.root / "embeddings" / made.model / f"tiny_hpd_{split}.safetensors",
    )
