"""Training as a user runs it: killed anywhere and rerun, refused, stopped with a cause."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import CheckedReward
from mixgrpo.stages import train
from mixgrpo.training import trainer as trainer_module
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.iteration import iterate
from mixgrpo.training.trainer import load_trainer


def arguments(world, folder: Path, **overrides) -> dict[str, Path]:
    return {
        "settings": world.write_settings(folder / "settings.json", **overrides),
        "prompts": world.prompts,
        "embeddings": world.embeddings,
        "checkpoints": folder / "checkpoints",
        "model": folder / "model.safetensors",
        "metrics": folder / "metrics.jsonl",
    }


def without_seconds(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: row[key] for key in row if "seconds" not in key} for row in rows]


def assert_same_weights(a: Path, b: Path) -> None:
    left, right = load_file(a), load_file(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train.run(**arguments(world, folder))
    return folder


def test_a_run_leaves_weights_metrics_and_no_checkpoint(world, undisturbed):
    assert [row["iteration"] for row in without_seconds(undisturbed / "metrics.jsonl")] == list(
        range(6)
    )
    assert not list((undisturbed / "checkpoints").glob("*/"))
    base = load_file(world.root / "models/flux/transformer/diffusion_pytorch_model.safetensors")
    tuned = load_file(undisturbed / "model.safetensors")
    assert base.keys() == tuned.keys()
    assert any(not torch.equal(base[name], tuned[name]) for name in base)


@pytest.mark.slow
def test_killed_at_random_points_it_ends_bit_identical(world, undisturbed, tmp_path):
    """kill -9 at random moments, three times or more, then once to the end."""
    args = arguments(world, tmp_path)
    command = [sys.executable, "-m", "mixgrpo", "train"]
    command += [part for name, path in args.items() for part in (f"--{name}", str(path))]
    draw, kills, seen = random.Random(714), 0, set()
    for _ in range(40):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        done = wait_for_progress(process, tmp_path / "checkpoints", seen)
        if not done:
            time.sleep(draw.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert kills >= 3
    assert process.returncode == 0
    assert_same_weights(tmp_path / "model.safetensors", undisturbed / "model.safetensors")
    assert without_seconds(tmp_path / "metrics.jsonl") == without_seconds(
        undisturbed / "metrics.jsonl"
    )


def wait_for_progress(process: subprocess.Popen, checkpoints: Path, seen: set[str]) -> bool:
    """Until the run has written a metrics row that no run before had (then False), or ended (True)."""
    while process.poll() is None:
        text = "".join(path.read_text() for path in checkpoints.glob("*/metrics.jsonl"))
        rows = {
            str(json.loads(line)["iteration"]) for line in text.splitlines() if line.endswith("}")
        }
        if rows - seen and len(seen) < 5:
            seen.update(rows)
            return False
        time.sleep(0.01)
    return True


@pytest.mark.slow
def test_killed_while_it_writes_a_checkpoint(world, undisturbed, tmp_path, monkeypatch):
    """What a kill -9 in the middle of a write leaves, a half-written temporary file, harms nothing."""
    args = arguments(world, tmp_path)
    monkeypatch.setattr(
        train, "iterate", fail_at(3, error=KeyboardInterrupt("the machine goes down"))
    )
    with pytest.raises(KeyboardInterrupt):
        train.run(**args)
    (directory,) = (tmp_path / "checkpoints").glob("*/")
    whole = (directory / "checkpoint.pt").read_bytes()
    (directory / ".checkpoint.pt.99.tmp").write_bytes(whole[: len(whole) // 2])
    monkeypatch.undo()
    train.run(**args)
    assert_same_weights(tmp_path / "model.safetensors", undisturbed / "model.safetensors")


def fail_at(when: int, *, error: BaseException):
    def iterate_or_fail(trainer, iteration):
        if iteration == when:
            raise error
        return iterate(trainer, iteration)

    return iterate_or_fail


def test_other_settings_never_resume_this_progress(world, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "iterate", fail_at(4, error=UserError("stopped")))
    with pytest.raises(UserError, match="stopped"):
        train.run(**arguments(world, tmp_path))
    monkeypatch.undo()
    train.run(**arguments(world, tmp_path, window={"size": 2}))
    rows = without_seconds(tmp_path / "metrics.jsonl")
    assert [row["window_size"] for row in rows] == [2] * 6
    train.run(**arguments(world, tmp_path))
    assert_same_weights(tmp_path / "model.safetensors", undisturbed / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "overrides"),
    {
        "mixgrpo": {},
        "flash": {"sampling": {"tail_ratio": 0.4}},
        "flash_star": {"sampling": {"tail_ratio": 0.2}, "window": {"strategy": "frozen"}},
        "dancegrpo": {
            "sampling": {"noise": "dance_grpo", "eta": 0.3, "sde_steps": "all_but_last"},
            "trained_steps": {"choice": "random", "count": 14},
        },
        "dancegrpo_4_first": {
            "sampling": {"noise": "dance_grpo", "eta": 0.3, "sde_steps": "all_but_last"},
            "trained_steps": {"choice": "first", "count": 4},
        },
    }.items(),
)
def test_ratio_is_exactly_one_before_the_first_update_on_a_flux(world, method, overrides):
    """One update per iteration, so every ratio is taken before the weights move.

    An image whose trained steps are drawn at random meets other images in a batch than in the rollout, of which the
    last has fewer: a network may then round its last bit otherwise.
    """
    rounding = 2**-22 if method == "dancegrpo" else 0
    settings = world.settings(**overrides, training={"num_updates": 1, "window_clock": 90})
    trainer = load_trainer(
        settings, Distributed(), prompts=world.prompts, embeddings=world.embeddings
    )
    for iteration in range(2):
        row = iterate(trainer, iteration)
        assert row["ratio_deviation"] <= rounding, method
        assert row["grad_norm"] > 0


def test_a_second_update_moves_the_ratio(world):
    trainer = load_trainer(
        world.settings(), Distributed(), prompts=world.prompts, embeddings=world.embeddings
    )
    assert 0 < iterate(trainer, 0)["ratio_deviation"] < 0.1


class FailingReward:
    name = "tiny_hps"

    def __init__(self, value: float):
        self.value = value

    def score(self, images, prompts):
        return torch.full((len(images),), self.value)


def test_a_failed_reward_stops_before_any_step(world, tmp_path, monkeypatch):
    failing = CheckedReward("tiny_hps", FailingReward(float("nan")))
    monkeypatch.setattr(trainer_module, "load_reward", lambda *args: failing)
    with pytest.raises(UserError, match=r"tiny_hps is not finite") as caught:
        train.run(**arguments(world, tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert not isinstance(caught.value, RewardError)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_before_the_step(world):
    trainer = load_trainer(
        world.settings(), Distributed(), prompts=world.prompts, embeddings=world.embeddings
    )
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match=r"iteration 3, update 0: the gradient norm is (nan|inf)"):
        iterate(trainer, 3)
    assert all(torch.equal(p, q) for p, q in zip(trainer.parameters, before, strict=True))


def test_code_that_changed_since_planning_is_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"planned with other code \(digest 0123456789ab"):
        train.run(**arguments(world, tmp_path, code="0123456789ab"))


def test_embeddings_of_other_prompts_are_refused_before_training(world, tmp_path):
    args = arguments(world, tmp_path)
    args["embeddings"] = world.root / "embeddings/flux/tiny_hpd_test.safetensors"
    with pytest.raises(UserError, match="other prompts"):
        train.run(**args)


def test_a_missing_base_model_is_named(world, tmp_path):
    model = {"name": "flux", "path": str(tmp_path / "nowhere"), "resolution": 32}
    with pytest.raises(UserError, match="nowhere"):
        train.run(**arguments(world, tmp_path, model=model))
