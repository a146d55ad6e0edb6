"""One step against closed forms, and the law of many steps against the law of the flow they solve."""

import math
from itertools import pairwise
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from mixgrpo.algorithm.schedule import shifted_sigmas
from mixgrpo.algorithm.transition import (
    NOISES,
    dance_grpo_noise,
    flow_grpo_noise,
    gaussian_log_prob,
    latent_mean,
    ode_step,
    predict_denoised,
    sde_transition,
)
from mixgrpo.config import SamplingConfig

SIGMAS = shifted_sigmas(25, 3.0)
DATA_MEAN, DATA_STD = 2.0, 0.5


def marginal(sigma):
    """Law of x_sigma when the data are N(DATA_MEAN, DATA_STD^2): (mean, std)."""
    return (1 - sigma) * DATA_MEAN, math.hypot((1 - sigma) * DATA_STD, sigma)


def velocity(x, sigma):
    """E[eps - x0 | x_sigma = x] of that flow, exact."""
    mean, std = marginal(sigma)
    return (sigma - (1 - sigma) * DATA_STD**2) / std**2 * (x - mean) - DATA_MEAN


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def per_image(values):
    """Numbers as a tensor that broadcasts against (B, L, C)."""
    return torch.as_tensor(values, dtype=torch.float64)[:, None, None]


# --- the formulas ---------------------------------------------------------------------------------


def test_sde_transition_by_hand():
    x, v = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    mean, std = sde_transition(x, v, 0.5, 0.4, 0.5)
    # drift = -1 + 0.25 / (2 * 0.5) * (2 + 0.5 * -1) = -0.625; mean = 2 + 0.0625
    assert mean.item() == pytest.approx(2.0625, abs=1e-6)
    assert float(std) == pytest.approx(0.5 * math.sqrt(0.1), abs=1e-12)


def test_sde_drift_is_the_velocity_less_half_g_squared_times_the_score():
    x, sigma, sigma_next, g = normal(1000, 1, dtype=torch.float64), 0.6, 0.55, 0.8
    center, spread = marginal(sigma)
    score = -(x - center) / spread**2
    mean, _ = sde_transition(x, velocity(x, sigma), sigma, sigma_next, g)
    expected = x + (velocity(x, sigma) - g**2 / 2 * score) * (sigma_next - sigma)
    torch.testing.assert_close(mean, expected)


def test_without_noise_the_transition_is_the_ode_step():
    x, v = normal(4, 3, 2), normal(4, 3, 2, seed=1)
    for sigma, sigma_next in pairwise(SIGMAS):
        mean, std = sde_transition(x, v, sigma, sigma_next, 0.0)
        assert torch.equal(mean, ode_step(x, v, sigma, sigma_next))
        assert std == 0


def test_ode_steps_of_a_straight_flow_land_on_the_image():
    image, noise = normal(4, 3, 2, dtype=torch.float64), normal(4, 3, 2, seed=1).double()
    x = noise
    for sigma, sigma_next in pairwise(SIGMAS):
        x = ode_step(x, noise - image, sigma, sigma_next)
        torch.testing.assert_close(x, (1 - sigma_next) * image + sigma_next * noise)


def test_the_denoised_prediction_inverts_the_flow():
    image, noise, sigma = normal(4, 3, 2), normal(4, 3, 2, seed=1), per_image([1, 0.7, 0.2, 0])
    x = (1 - sigma.float()) * image + sigma.float() * noise
    torch.testing.assert_close(predict_denoised(x, noise - image, sigma), image)


def test_flow_grpo_noise_by_hand():
    assert float(flow_grpo_noise(0.5, SIGMAS, 0.7)) == pytest.approx(0.7, abs=1e-15)
    assert float(flow_grpo_noise(0.8, SIGMAS, 0.7)) == pytest.approx(1.4, abs=1e-15)
    # At sigma = 1 the denominator is 1 - sigma_1 = 1 - 2.88 / 2.92 = 0.04 / 2.92.
    at_one = 0.7 * math.sqrt(2.92 / 0.04)
    assert float(flow_grpo_noise(1.0, SIGMAS, 0.7)) == pytest.approx(at_one, rel=1e-12)


def test_dance_grpo_noise_is_eta():
    assert dance_grpo_noise(0.5, SIGMAS, 0.3) == 0.3
    expected = torch.full((26,), 0.3, dtype=torch.float64)
    assert torch.equal(dance_grpo_noise(SIGMAS, SIGMAS, 0.3), expected)


def test_every_noise_of_the_config_is_a_function_here():
    assert set(NOISES) == set(get_args(get_type_hints(SamplingConfig)["noise"]))
    assert NOISES["flow_grpo"](0.8, SIGMAS, 0.7) != NOISES["dance_grpo"](0.8, SIGMAS, 0.7)


@pytest.mark.parametrize("std", [0.3, per_image([0.1, 0.3, 1.0, 2.0])])
def test_log_prob_and_its_gradient_are_those_of_torch_distributions(std):
    x_next, mean = normal(4, 5, 3, dtype=torch.float64), normal(4, 5, 3, seed=1).double()
    mean.requires_grad_()
    expected = Normal(mean, std).log_prob(x_next).mean((1, 2))
    (expected_grad,) = torch.autograd.grad(expected.sum(), mean)
    log_prob = gaussian_log_prob(x_next, mean, std)
    (grad,) = torch.autograd.grad(log_prob.sum(), mean)
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(grad, expected_grad)


# --- rollout and update get the same bits ---------------------------------------------------------


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(0, 23), min_size=2, max_size=6),
    noise=st.sampled_from(sorted(NOISES)),
    seed=st.integers(0, 100),
)
def test_one_sigma_for_all_and_one_per_image_give_the_same_bits(steps, noise, seed):
    """The rollout of each image, with numbers; then the update of all, with a sigma for each."""
    batch = len(steps)
    x, v, z = (normal(batch, 3, 5, seed=3 * seed + k) for k in range(3))
    drawn, old_log_prob = [], []
    for k, i in enumerate(steps):
        sigma, sigma_next = SIGMAS[i].item(), SIGMAS[i + 1].item()
        g = NOISES[noise](sigma, SIGMAS, 0.7)
        one = slice(k, k + 1)
        mean, std = sde_transition(x[one], v[one], sigma, sigma_next, g)
        drawn.append(mean + std * z[one])
        old_log_prob.append(gaussian_log_prob(drawn[-1], mean, std))
        assert torch.equal(  # 0-dim tensors are numbers, too
            mean, sde_transition(x[one], v[one], SIGMAS[i], SIGMAS[i + 1], g)[0]
        )
    sigma, sigma_next = per_image(SIGMAS[steps]), per_image(SIGMAS[[i + 1 for i in steps]])
    mean, std = sde_transition(x, v, sigma, sigma_next, NOISES[noise](sigma, SIGMAS, 0.7))
    log_prob = gaussian_log_prob(torch.cat(drawn), mean, std)
    assert torch.equal(mean + std * z, torch.cat(drawn))
    assert torch.equal(torch.exp(log_prob - torch.cat(old_log_prob)), torch.ones(batch))


def test_float64_scales_never_promote_fp32_images():
    x, v = normal(2, 3, 5), normal(2, 3, 5, seed=1)
    for sigma, sigma_next in ((0.8, 0.7), (per_image([0.8, 0.6]), per_image([0.7, 0.5]))):
        g = flow_grpo_noise(sigma, SIGMAS, 0.7)
        mean, std = sde_transition(x, v, sigma, sigma_next, g)
        results = [
            ode_step(x, v, sigma, sigma_next),
            predict_denoised(x, v, sigma),
            mean,
            mean + std * v,
            gaussian_log_prob(x, mean, std),
        ]
        assert {result.dtype for result in results} == {torch.float32}


def test_log_prob_does_not_depend_on_the_rest_of_the_batch():
    x_next, mean = normal(12, 1024, 64), normal(12, 1024, 64, seed=1)
    together = gaussian_log_prob(x_next, mean, 0.7)
    for size in (1, 3):
        parts = zip(x_next.split(size), mean.split(size), strict=True)
        apart = torch.cat([gaussian_log_prob(one, other, 0.7) for one, other in parts])
        assert torch.equal(together, apart)


def test_latent_mean_is_summed_in_float64():
    x = torch.full((1, 1 << 20), 0.1)
    x[0, 0] = 1e8
    exact = x.double().mean().float()
    assert latent_mean(x) == exact


# --- the SDE has the marginals of the ODE (section 7 of the paper) ---------------------------------


def kolmogorov_smirnov(sample, mean, std):
    """sqrt(n) sup |F_n - F| against N(mean, std^2): beyond 1.63 with probability 1 %."""
    cdf = torch.special.ndtr((sample.sort().values - mean) / std)
    n = len(sample)
    rank = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * torch.maximum((rank[1:] - cdf).max(), (cdf - rank[:-1]).max()).item()


@pytest.mark.parametrize(("noise", "eta"), [("flow_grpo", 0.7), ("dance_grpo", 0.3)])
@pytest.mark.parametrize("window", [range(0, 399), range(100, 200), range(0)])
def test_the_sde_window_keeps_the_marginals_in_the_limit_of_many_steps(noise, eta, window):
    sigmas = shifted_sigmas(400, 3.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator, dtype=torch.float64)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        v = velocity(x, sigma)
        if i in window:
            g = NOISES[noise](sigma, sigmas, eta)
            mean, std = sde_transition(x, v, sigma, sigma_next, g)
            x = mean + std * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        else:
            x = ode_step(x, v, sigma, sigma_next)
        if i + 1 in (window.stop, 400):
            assert kolmogorov_smirnov(x, *marginal(sigma_next)) < 1.63


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_next", [0.5, 0.6, per_image([0.4, 0.6])])
def test_a_step_that_does_not_denoise_is_refused(sigma_next):
    x = torch.zeros(2, 1, 1)
    with pytest.raises(ValueError, match="does not denoise: sigma must fall"):
        ode_step(x, x, 0.5, sigma_next)
    with pytest.raises(ValueError, match="does not denoise: sigma must fall"):
        sde_transition(x, x, 0.5, sigma_next, 0.3)


def test_an_ode_step_has_no_density():
    x = torch.zeros(2, 1, 1)
    with pytest.raises(ValueError, match="std must be positive"):
        gaussian_log_prob(x, x, 0.0)
