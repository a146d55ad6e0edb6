"""The tiny world trained on the real reward classes, from small checkpoints, here and in a process of its own."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mixgrpo.config import RewardConfig, canonical
from mixgrpo.errors import UserError
from mixgrpo.stages import train
from tests.rewards.small_clip_score import make_clip_score
from tests.rewards.small_pick_score import make_pick_score

NAMES = ("pick_score", "clip_score")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("real")
    makers = {"pick_score": make_pick_score, "clip_score": make_clip_score}
    return {name: make(root / name) for name, make in makers.items()}


def arguments(world, folder: Path, rewards: dict[str, RewardConfig]) -> dict[str, Path]:
    settings = folder / "settings.json"
    config = world.settings(training={"num_iterations": 3, "num_prompts": 2})
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(canonical(replace(config, rewards=rewards)))
    return {
        "settings": settings,
        "prompts": world.prompts,
        "embeddings": world.embeddings,
        "checkpoints": folder / "checkpoints",
        "model": folder / "model.safetensors",
        "metrics": folder / "metrics.jsonl",
    }


def trained(world, folder: Path, rewards: dict[str, RewardConfig]) -> list[dict]:
    args = arguments(world, folder, rewards)
    train.run(**args)
    return [json.loads(line) for line in args["metrics"].read_text().splitlines()]


@contextlib.contextmanager
def served(name: str, path: str) -> Iterator[str]:
    """URL of a `serve-reward` process, as a person starts one."""
    command = [sys.executable, "-m", "mixgrpo", "serve-reward", "--reward", name]
    command += ["--path", f"{name}={path}", "--device", "cpu", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line
            yield found[0]
        finally:
            process.terminate()


def test_it_trains_on_the_real_classes_here_and_in_another_process(
    world, checkpoints, tmp_path, monkeypatch
):
    rewards = {name: RewardConfig(path=path) for name, path in checkpoints.items()}
    here = trained(world, tmp_path / "here", rewards)
    with served("clip_score", checkpoints["clip_score"]) as url:
        monkeypatch.setenv("MIXGRPO_REWARDS", f"clip_score={url}")
        # the server has the weights: this machine needs no path
        apart = trained(world, tmp_path / "apart", rewards | {"clip_score": RewardConfig()})
    assert len(here) == len(apart) == 3
    for one, other in zip(here, apart, strict=True):
        assert one.keys() == other.keys()
        for name in NAMES:
            assert one[f"reward_group_std/{name}"] > 0
            assert other[f"reward_seconds/{name}"] > 0
        plain = {key: value for key, value in one.items() if "seconds" not in key}
        assert {key: other[key] for key in plain} == pytest.approx(plain, rel=1e-3, abs=1e-6)
    # one step of round-off apart at most, where the first prompt was embedded alone
    for name in NAMES:
        assert apart[0][f"reward/{name}"] == pytest.approx(here[0][f"reward/{name}"], abs=1e-6)


def test_a_server_that_is_gone_is_named_before_training(world, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("mixgrpo.rewards._http.BACKOFF", 0.01)
    monkeypatch.setenv("MIXGRPO_REWARDS", "pick_score=http://127.0.0.1:9")
    args = arguments(world, tmp_path, {"pick_score": RewardConfig()})
    with pytest.raises(UserError, match=r"pick_score at http://127\.0\.0\.1:9.*serve-reward"):
        train.run(**args)
    assert not args["metrics"].exists()


def test_a_wrong_option_is_named_before_training(world, checkpoints, tmp_path):
    config = RewardConfig(path=checkpoints["pick_score"], options={"backend": "native"})
    with pytest.raises(UserError, match=r"pick_score: option 'backend' is not known. There are: "):
        train.run(**arguments(world, tmp_path, {"pick_score": config}))
