"""Rewards elsewhere score the first groups while the next are sampled; no number depends on it."""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mixgrpo.errors import RewardError
from mixgrpo.records import Conditioning, Prompt
from mixgrpo.rewards import CheckedReward, Reward
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.iteration import iterate
from mixgrpo.training.trainer import Trainer
from tests.toys import BrightnessReward, ToyPolicy, toy_cond

TIMEOUT = 10
METHODS = {
    "mixgrpo": {},
    "flash": {"sampling": {"tail_ratio": 0.4}},
    "online_dpo": {"dpo": {"pairs": "online", "num_levels": 8}},
    "offline_dpo": {"dpo": {"pairs": "offline", "num_levels": 8}},
}


def toy_trainer(
    world, reward: Reward, *, elsewhere: bool, micro_batch: int, **overrides
) -> Trainer:
    training = {"micro_batch": micro_batch, "num_updates": 1}
    settings = world.settings(**overrides, training=training)
    policy, base = ToyPolicy(), ToyPolicy()
    return Trainer(
        settings=settings,
        distributed=Distributed(),
        policy=policy,
        base=base if settings.dpo else None,
        rewards=[
            CheckedReward("brightness", reward, elsewhere=elsewhere),
            CheckedReward("again", BrightnessReward()),
        ],
        weights={"brightness": 1.0, "again": 0.5},
        prompts=[Prompt(f"p{i}", f"prompt {i}", "plain") for i in range(8)],
        cond=toy_cond(8),
        optimizer=torch.optim.AdamW(policy.network.parameters(), lr=1e-3),
        parameters=list(policy.network.parameters()),
    )


class Heard(BrightnessReward):
    """Remembers the prompts of each time that it is asked."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.prompts.append(list(prompts))
        return super().score(images, list(prompts))


@pytest.mark.parametrize("micro_batch", [2, 4, 8, 48])
@pytest.mark.parametrize("method", METHODS)
def test_where_a_reward_runs_changes_no_bit(world, method, micro_batch):
    rows, weights, heard = [], [], []
    for elsewhere in (False, True):
        reward = Heard()
        trainer = toy_trainer(
            world, reward, elsewhere=elsewhere, micro_batch=micro_batch, **METHODS[method]
        )
        row = [iterate(trainer, iteration) for iteration in range(2)]
        rows.append([{k: v for k, v in r.items() if "seconds" not in k} for r in row])
        weights.append(torch.cat([p.detach().flatten() for p in trainer.parameters]))
        heard.append(reward.prompts)
    assert rows[0] == rows[1]
    assert torch.equal(*weights)
    if "dpo" not in method:
        assert [row["ratio_deviation"] for row in rows[1]] == [0.0, 0.0]
    here, elsewhere = heard
    assert [len(prompts) for prompts in here] == [16, 16]
    assert list(itertools.chain(*elsewhere)) == list(itertools.chain(*here))
    groups = {2: 1, 4: 1, 8: 2, 48: 4}[micro_batch]  # at a time
    assert [len(prompts) for prompts in elsewhere] == [4 * groups] * (2 * 4 // groups)


class Patient(ToyPolicy):
    """Does not sample the last group before the first has been scored."""

    def __init__(self, scored: threading.Event):
        super().__init__()
        self.scored, self.finished = scored, 0

    def decode(self, latents: Tensor) -> Tensor:
        self.finished += 1
        return super().decode(latents)

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        if self.finished == 3:
            assert self.scored.wait(TIMEOUT)
        return super().velocity(x, sigma, cond)


@pytest.mark.parametrize("method", ["mixgrpo", "online_dpo"])
def test_the_first_group_is_scored_while_the_last_is_sampled(world, method):
    scored = threading.Event()

    class Telling(BrightnessReward):
        def score(self, images: Tensor, prompts: list[str]) -> Tensor:
            scored.set()
            return super().score(images, prompts)

    trainer = toy_trainer(world, Telling(), elsewhere=True, micro_batch=4, **METHODS[method])
    policy = Patient(scored)
    trainer = replace(
        trainer,
        policy=policy,
        optimizer=torch.optim.AdamW(policy.network.parameters()),
        parameters=list(policy.network.parameters()),
    )
    row = iterate(trainer, 0)
    assert policy.finished == 4
    assert 0 <= row["reward_wait_seconds"] <= row["reward_seconds"]
    phases = row["rollout_seconds"] + row["reward_seconds"] + row["update_seconds"]
    assert row["seconds"] == pytest.approx(phases)


def test_a_reward_that_fails_on_the_first_group_is_said_in_its_words_and_asked_no_more(world):
    asked = []

    class Failing(BrightnessReward):
        def score(self, images: Tensor, prompts: list[str]) -> Tensor:
            asked.append(prompts[0])
            raise RewardError("reward brightness: no server there")

    trainer = toy_trainer(world, Failing(), elsewhere=True, micro_batch=4)
    before = [p.detach().clone() for p in trainer.parameters]
    with pytest.raises(RewardError, match=r"^reward brightness: no server there$"):
        iterate(trainer, 0)
    assert len(asked) == 1
    assert all(torch.equal(p, q) for p, q in zip(before, trainer.parameters, strict=True))
