"""Sharing changes no number; what is counted is what the paper prints."""

import statistics

import pytest
import torch

from mixgrpo.algorithm.dpm import DPMSolver
from mixgrpo.algorithm.nfe import rollout_nfe
from mixgrpo.algorithm.window import window_at
from mixgrpo.config import SamplingConfig, WindowConfig
from mixgrpo.training.rollout import Rollout, collect, plan_rollout, rollout_noise
from tests.toys import LATENT, CountingPolicy, ToyPolicy, toy_cond

METHODS = {
    "mixgrpo": {},
    "flash": {"tail_ratio": 0.4},
    "flash_star": {"tail_ratio": 0.2},
    "dancegrpo": {"noise": "dance_grpo", "eta": 0.3, "sde_steps": "all_but_last"},
}


def sample(
    policy, config: SamplingConfig, window: range, *, num_prompts=3, group_size=4, micro_batch=48
) -> Rollout:
    plan = plan_rollout(config, window)
    noise = [
        rollout_noise(LATENT, len(plan.sde_steps), group_size, 5, p) for p in range(num_prompts)
    ]
    return collect(
        policy,
        toy_cond(num_prompts),
        plan,
        initial_noise=torch.stack([initial for initial, _ in noise]),
        sde_noise=torch.stack([sde for _, sde in noise], 1),
        micro_batch=micro_batch,
        solver=lambda: DPMSolver(config.solver_order, config.solver_type),
    )


@pytest.mark.parametrize("start", [0, 5, 13, 20])
@pytest.mark.parametrize("method", METHODS)
def test_sharing_changes_no_number(method, start):
    """Round-off only: batches of 3 and 12 may take other matrix kernels; 1e-5 on values of order 1."""
    window = range(start, start + 4)
    shared = sample(ToyPolicy(), SamplingConfig(**METHODS[method]), window)
    naive = sample(ToyPolicy(), SamplingConfig(**METHODS[method], sharing=False), window)
    for field in ("latents", "trajectory", "log_prob"):
        torch.testing.assert_close(getattr(shared, field), getattr(naive, field), rtol=0, atol=1e-5)


def test_micro_batches_change_no_number():
    whole = sample(ToyPolicy(), SamplingConfig(), range(2, 6))
    parts = sample(ToyPolicy(), SamplingConfig(), range(2, 6), micro_batch=5)
    torch.testing.assert_close(whole.latents, parts.latents, rtol=0, atol=1e-5)


def test_images_of_a_group_differ_and_share_their_start():
    rollout = sample(ToyPolicy(), SamplingConfig(), range(3, 7))
    first = rollout.trajectory[0].view(3, 4, *LATENT)
    assert torch.equal(first[:, 0], first[:, 3])
    final = rollout.latents.view(3, 4, *LATENT)
    assert (final[:, 0] - final[:, 1]).abs().amax() > 0.01
    assert (first[0] - first[1]).abs().amax() > 0.01


def test_without_noise_a_rollout_is_the_ode():
    """With the SDE's noise scale near 0 the rollout ends where plain Euler does."""
    policy, config = ToyPolicy(), SamplingConfig(eta=1e-6)
    rollout = sample(policy, config, range(4, 8))
    noise = torch.stack([rollout_noise(LATENT, 4, 4, 5, p)[0] for p in range(3)])
    x, sigmas = noise, rollout.plan.sigmas
    with torch.no_grad():
        for i in range(25):
            x = x + policy.velocity(x, sigmas[i], toy_cond(3)) * (sigmas[i + 1] - sigmas[i])
    torch.testing.assert_close(rollout.latents[::4], x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", [0, 9, 20])
def test_counted_evaluations_with_sharing(method, start):
    """l + 1 evaluations per prompt up to the first SDE step, then one per image and step."""
    policy, window = CountingPolicy(), range(start, start + 4)
    rollout = sample(
        policy, SamplingConfig(**METHODS[method]), window, num_prompts=2, group_size=12
    )
    num_steps = len(rollout.plan.sigmas) - 1
    together = rollout.plan.sde_steps.start + 1
    assert policy.num_evaluations == 2 * (together + 12 * (num_steps - together))


@pytest.mark.parametrize(
    ("printed", "window", "tail_ratio"),
    [
        (25, WindowConfig(interval=25), None),  # Table 1
        (19, WindowConfig(interval=20), 0.6),  # Table 9, Flash
        (16, WindowConfig(interval=20), 0.4),  # Tables 1 and 9, Flash
        (13, WindowConfig(interval=20), 0.2),
        (12, WindowConfig(strategy="frozen"), 0.4),  # Table 9, Flash*
        (10, WindowConfig(strategy="frozen"), 0.3),
        (8, WindowConfig(strategy="frozen"), 0.2),  # Tables 1 and 9, Flash*
    ],
)
def test_the_paper_s_nfe_columns_as_counted_network_calls(printed, window, tail_ratio):
    """Mean over the 300 iterations of real rollouts, every image evaluated at every step."""
    config = SamplingConfig(tail_ratio=tail_ratio, sharing=False)
    counted = []
    for iteration in range(300):
        policy = CountingPolicy()
        steps = window_at(window, 25, iteration)
        sample(policy, config, steps, num_prompts=1, group_size=2)
        assert policy.num_evaluations / 2 == rollout_nfe(25, steps, tail_ratio)
        counted.append(policy.num_evaluations / 2)
    assert round(statistics.fmean(counted)) == printed
