"""Which pairs are trained, what an update computes, and that the ratio starts at exactly 1."""

import pytest
import torch

from mixgrpo.config import SamplingConfig, TrainedStepsConfig
from mixgrpo.training.grpo import (
    accumulate_gradients,
    batches_of_pairs,
    images_of_update,
    trained_steps,
)
from mixgrpo.training.randomness import seeded
from tests.toys import ToyPolicy
from tests.training.test_rollout import METHODS, sample

G, P = 12, 4


def generators(n: int) -> list[torch.Generator]:
    return [seeded("steps", image) for image in range(n)]


def gradients(policy: ToyPolicy, rollout, mask, images, **options) -> tuple[torch.Tensor, dict]:
    policy.network.zero_grad()
    advantages = torch.randn(len(rollout.latents), generator=torch.Generator().manual_seed(2))
    options = {"clip_range": 1e-3, "kl_weight": 0.0, "micro_batch": 48, "base": None} | options
    base = options.pop("base")
    sums = accumulate_gradients(policy, base, rollout, advantages, images, mask, **options)
    return torch.cat([p.grad.flatten() for p in policy.network.parameters()]), sums


def masks(num_steps: int) -> dict[str, torch.Tensor]:
    configs = {
        "all": TrainedStepsConfig(),
        "random": TrainedStepsConfig(choice="random", count=2),
        "first": TrainedStepsConfig(choice="first", count=2),
    }
    return {
        n: trained_steps(c, num_steps, generators=generators(P * G)) for n, c in configs.items()
    }


@pytest.mark.parametrize("choice", ["all", "random", "first"])
@pytest.mark.parametrize("method", METHODS)
def test_ratio_is_exactly_one_before_the_first_update(method, choice):
    """Batches of 4 and more take the same kernels here, so even subsets of pairs replay bit for bit."""
    policy = ToyPolicy()
    rollout = sample(
        policy, SamplingConfig(**METHODS[method]), range(6, 10), num_prompts=P, group_size=G
    )
    mask = masks(len(rollout.log_prob))[choice]
    for update in range(2):
        images = images_of_update(update, num_prompts=P, group_size=G, num_updates=2)
        _, sums = gradients(policy, rollout, mask, images)
        assert sums["ratio_deviation"] == 0
        assert sums["clip_fraction"] == 0


@pytest.mark.parametrize("choice", ["all", "random", "first"])
def test_merging_the_first_step_changes_no_gradient(choice):
    """Relative 1e-6 in fp32: sums are taken in another order."""
    window, grads, counts = range(6, 10), [], []
    for sharing in (True, False):
        policy = ToyPolicy()
        config = SamplingConfig(sharing=sharing)
        rollout = sample(policy, config, window, num_prompts=P, group_size=G)
        policy.num_evaluations = 0
        images = images_of_update(0, num_prompts=P, group_size=G, num_updates=2)
        grad, _ = gradients(policy, rollout, masks(4)[choice], images)
        grads.append(grad)
        counts.append(policy.num_evaluations)
    assert (grads[0] - grads[1]).norm() / grads[1].norm() < 1e-6
    at_first = int(
        masks(4)[choice][images_of_update(0, num_prompts=P, group_size=G, num_updates=2), 0].sum()
    )
    assert counts[1] - counts[0] == at_first - P


def test_micro_batches_change_no_gradient():
    policy = ToyPolicy()
    rollout = sample(policy, SamplingConfig(), range(3, 7), num_prompts=P, group_size=G)
    images = torch.arange(P * G)
    mask = masks(4)["random"]
    whole, _ = gradients(policy, rollout, mask, images)
    parts, _ = gradients(policy, rollout, mask, images, micro_batch=7)
    assert (whole - parts).norm() / whole.norm() < 1e-6


def test_random_steps_are_each_image_s_own_and_fourteen_of_twenty_four():
    config = TrainedStepsConfig(choice="random", count=14)
    mask = trained_steps(config, 24, generators=generators(200))
    assert (mask.sum(1) == 14).all()
    share = mask.float().mean(0)
    assert (
        share - 14 / 24
    ).abs().max() < 0.15  # every step is as likely: 4 standard errors of 200 draws
    assert not torch.equal(mask[0], mask[1])


def test_first_steps_are_the_noisiest():
    mask = trained_steps(TrainedStepsConfig(choice="first", count=4), 24, generators=generators(3))
    assert mask[:, :4].all()
    assert not mask[:, 4:].any()


def test_updates_take_the_images_in_the_order_generated():
    updates = [images_of_update(u, num_prompts=2, group_size=12, num_updates=4) for u in range(4)]
    assert updates[0].tolist() == [0, 1, 2, 12, 13, 14]
    assert sorted(torch.cat(updates).tolist()) == list(range(24))


def test_every_pair_goes_through_once():
    mask = masks(4)["random"]
    for micro_batch in (1, 3, 5):
        seen = torch.zeros_like(mask, dtype=torch.int)
        for pairs in batches_of_pairs(
            torch.arange(P * G), mask, group_size=G, merge_first=True, micro_batch=micro_batch
        ):
            at_first = bool((pairs.steps == 0).all())
            assert (pairs.prompts is not None) == at_first
            evaluated = pairs.images if pairs.prompts is None else pairs.prompts
            assert 0 < len(evaluated) <= micro_batch
            seen[pairs.images, pairs.steps] += 1
        assert torch.equal(seen, mask.int())


def test_kl_to_the_base_is_zero_at_the_base_and_grows_away_from_it():
    policy, base, other = ToyPolicy(), ToyPolicy(), ToyPolicy(seed=9)
    rollout = sample(policy, SamplingConfig(), range(3, 7), num_prompts=P, group_size=G)
    images, mask = torch.arange(P * G), masks(4)["all"]
    without, _ = gradients(policy, rollout, mask, images)
    same, at_base = gradients(policy, rollout, mask, images, base=base, kl_weight=1.0)
    assert at_base["kl"] == 0
    torch.testing.assert_close(same, without)
    pulled, away = gradients(policy, rollout, mask, images, base=other, kl_weight=1.0)
    assert away["kl"] > 0
    assert (pulled - without).norm() / without.norm() > 1e-3


def test_gradient_moves_log_prob_with_the_advantage():
    """A small step along the negative gradient raises the mean of A log_prob: the sign of Eq. 9."""
    policy = ToyPolicy()
    rollout = sample(policy, SamplingConfig(), range(3, 7), num_prompts=P, group_size=G)
    images, mask = torch.arange(P * G), masks(4)["all"]
    _, before = gradients(policy, rollout, mask, images, clip_range=10.0)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter -= 1e-3 * parameter.grad
    _, after = gradients(policy, rollout, mask, images, clip_range=10.0)
    assert after["loss"] < before["loss"]
