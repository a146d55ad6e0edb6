"""Flow-DPO: where its pairs and its reference come from, its loss at the start, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch

from mixgrpo.algorithm.advantage import group_advantages
from mixgrpo.records import Prompt
from mixgrpo.rewards import CheckedReward
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.dpo import DpoIteration, copy_trained
from mixgrpo.training.iteration import iterate
from mixgrpo.training.trainer import Trainer
from tests.toys import BrightnessReward, ToyPolicy, toy_cond


def toy_trainer(world, pairs: str, *, learning_rate=3e-3, **dpo) -> Trainer:
    settings = world.settings(
        dpo={"pairs": pairs, "num_levels": 8, "beta": 20.0, **dpo},
        sampling={"num_steps": 8},
        training={"window_clock": 10, "learning_rate": learning_rate, "num_iterations": 30},
    )
    policy = ToyPolicy()
    return Trainer(
        settings=settings,
        distributed=Distributed(),
        policy=policy,
        base=ToyPolicy(),
        rewards=[CheckedReward("brightness", BrightnessReward())],
        weights={"brightness": 1.0},
        prompts=[Prompt(f"p{i}", f"prompt {i}", "plain") for i in range(8)],
        cond=toy_cond(8),
        optimizer=torch.optim.AdamW(policy.network.parameters(), lr=learning_rate),
        parameters=list(policy.network.parameters()),
    )


@pytest.mark.parametrize("pairs", ["offline", "online"])
def test_policy_equals_reference_before_the_first_update(world, pairs):
    """Then every margin is 0 and the loss is log 2, and an update changes it."""
    trainer = toy_trainer(world, pairs)
    work = DpoIteration(trainer, [0, 1, 2, 3], 0)
    images = trainer.policy.decode(work.latents)
    rewards_PG = BrightnessReward().score(images, []).view(4, 4)
    advantages = group_advantages(rewards_PG)
    winners, losers = (work.latents.view(4, 4, 4, 6)[:, i] for i in (0, 1))
    sums = work.accumulate(winners, losers, levels=8, update=0)
    assert sums["loss"].item() == pytest.approx(math.log(2), abs=1e-6)
    assert sums["dpo_margin"] == 0
    stats = work.optimise(advantages)
    assert stats["update_nfe"] == 8
    assert stats["dpo_margin"] != 0


def test_winner_and_loser_are_best_and_worst_of_the_group(world, monkeypatch):
    trainer = toy_trainer(world, "online")
    work = DpoIteration(trainer, [0, 1], 0)
    seen = []
    original = work.accumulate
    monkeypatch.setattr(
        work, "accumulate", lambda *pair, **k: seen.append(pair) or original(*pair, **k)
    )
    advantages = torch.tensor([[0.0, 2.0, -1.0, 1.0], [3.0, 0.0, 1.0, -3.0]])
    work.optimise(advantages)
    groups = work.latents.view(2, 4, 4, 6)
    winners, losers = seen[0]
    assert torch.equal(winners, torch.stack([groups[0, 1], groups[1, 0]]))
    assert torch.equal(losers, torch.stack([groups[0, 2], groups[1, 3]]))


def test_offline_pairs_are_the_base_s_and_the_same_in_every_epoch(world):
    trainer = toy_trainer(world, "offline")
    first = DpoIteration(trainer, [0, 1], 0).latents
    with torch.no_grad():
        for parameter in trainer.policy.network.parameters():
            parameter.mul_(1.5)
    assert torch.equal(DpoIteration(trainer, [0, 1], 7).latents, first)
    assert len(first.unique(dim=0)) == 8


def test_online_pairs_are_the_policy_s_and_new_in_every_iteration(world):
    trainer = toy_trainer(world, "online")
    first = DpoIteration(trainer, [0, 1], 0).latents
    assert not torch.equal(DpoIteration(trainer, [0, 1], 1).latents, first)
    with torch.no_grad():
        for parameter in trainer.policy.network.parameters():
            parameter.mul_(1.5)
    assert not torch.equal(DpoIteration(trainer, [0, 1], 0).latents, first)


def test_the_online_reference_becomes_the_policy_every_interval_of_the_paper_s_clock(world):
    """Clock 10, interval 40: before iterations 4, 8, 12; never offline."""
    for pairs, expected in (("online", [4, 8, 12]), ("offline", [])):
        trainer = toy_trainer(world, pairs, reference_interval=40)
        refreshed = []
        for iteration in range(13):
            with torch.no_grad():
                trainer.policy.network[0].bias.add_(1.0)
            before = trainer.base.network[0].bias.clone()
            DpoIteration(trainer, [0], iteration)
            if not torch.equal(before, trainer.base.network[0].bias):
                refreshed.append(iteration)
        assert refreshed == expected


@pytest.mark.parametrize("pairs", ["offline", "online"])
def test_it_raises_the_reward_of_what_the_policy_samples(world, pairs):
    trainer = toy_trainer(world, pairs)

    def reward() -> float:
        online = replace(trainer, settings=toy_trainer(world, "online").settings)
        latents = DpoIteration(online, list(range(8)), 0).latents
        return BrightnessReward().score(trainer.policy.decode(latents), []).mean().item()

    before = reward()
    rows = [iterate(trainer, i) for i in range(12)]
    assert reward() > before + 0.02
    assert rows[0]["rollout_nfe"] == 8
    assert rows[0]["rollout_evaluations"] == 8
    assert rows[0]["update_evaluations"] == 2 * 8 / 4
    assert rows[-1]["dpo_accuracy"] > 0.5


def test_copy_trained_leaves_frozen_weights():
    source, target = ToyPolicy(seed=1).network, ToyPolicy(seed=2).network
    source[0].requires_grad_(False)
    frozen = target[0].weight.clone()
    copy_trained(source, target)
    assert torch.equal(target[0].weight, frozen)
    assert torch.equal(target[2].weight, source[2].weight)
