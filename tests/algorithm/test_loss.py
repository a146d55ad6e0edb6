import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mixgrpo.algorithm.loss import dpo_loss, gaussian_kl, grpo_loss
from mixgrpo.algorithm.transition import gaussian_log_prob

RATIO = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)


def test_clipped_loss_and_gradient_by_hand():
    """Clipped to 1.2 and 0.8, the terms are -1.2, -0.5, 1.5, 0.8: only the middle two can move."""
    ratio = RATIO.clone().requires_grad_()
    loss, _ = grpo_loss(ratio.log(), torch.zeros(4).double(), ADVANTAGES, clip_range=0.2)
    (grad,) = torch.autograd.grad(loss, ratio)
    assert loss.item() == pytest.approx(0.15, abs=1e-12)
    torch.testing.assert_close(grad, torch.tensor([0, -0.25, 0.25, 0], dtype=torch.float64))


def test_only_the_change_of_the_log_prob_counts():
    old = torch.tensor([-3.0, 0.0, 2.0, 7.0], dtype=torch.float64)
    loss, _ = grpo_loss(old + RATIO.log(), old, ADVANTAGES, clip_range=0.2)
    assert loss.item() == pytest.approx(0.15, abs=1e-12)


def test_metrics_by_hand():
    ratio = torch.tensor([1.0, 1.1, 0.7, 1.4])
    log_prob = ratio.log().requires_grad_()
    _, metrics = grpo_loss(log_prob, torch.zeros(4), torch.ones(4), clip_range=0.2)
    assert metrics.keys() == {"ratio_mean", "ratio_deviation", "clip_fraction"}
    assert metrics["ratio_mean"].item() == pytest.approx(1.05)
    assert metrics["ratio_deviation"].item() == pytest.approx(0.4)
    assert metrics["clip_fraction"].item() == 0.5
    assert not any(value.requires_grad for value in metrics.values())


def test_at_ratio_1_it_is_the_policy_gradient():
    log_prob = torch.randn(3, 4).requires_grad_()
    advantages = torch.randn(3, 4, dtype=torch.float64)
    loss, metrics = grpo_loss(log_prob, log_prob.detach(), advantages, clip_range=1e-4)
    (grad,) = torch.autograd.grad(loss, log_prob)
    assert metrics["ratio_mean"] == 1
    assert metrics["ratio_deviation"] == 0
    assert metrics["clip_fraction"] == 0
    torch.testing.assert_close(grad, -advantages.float() / 12)


def test_float64_advantages_leave_the_loss_in_fp32():
    loss, metrics = grpo_loss(torch.zeros(4), torch.zeros(4), ADVANTAGES, clip_range=0.2)
    assert {loss.dtype, *(value.dtype for value in metrics.values())} == {torch.float32}


def test_a_step_along_the_gradient_makes_the_better_image_likelier():
    x_next = torch.tensor([[1.0], [-1.0]])
    mean = torch.zeros(2, 1, requires_grad=True)
    log_prob = gaussian_log_prob(x_next, mean, 0.5)
    loss, _ = grpo_loss(log_prob, log_prob.detach(), torch.tensor([1.0, -1.0]), clip_range=0.2)
    (grad,) = torch.autograd.grad(loss, mean)
    after = gaussian_log_prob(x_next, mean - 0.01 * grad, 0.5)
    assert after[0] > log_prob[0]
    assert after[1] < log_prob[1]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_shapes_that_would_broadcast_are_refused(position):
    arguments = [torch.zeros(4), torch.zeros(4), torch.zeros(4)]
    arguments[position] = torch.zeros(4, 1)
    with pytest.raises(ValueError, match=r"\(4, 1\).* must have one shape"):
        grpo_loss(*arguments, clip_range=0.2)


def test_a_clip_range_of_0_is_refused():
    with pytest.raises(ValueError, match=r"clip_range=0\.0 must be positive"):
        grpo_loss(torch.zeros(4), torch.zeros(4), torch.zeros(4), clip_range=0.0)


@pytest.mark.parametrize("std", [0.3, torch.tensor([0.1, 1.0]).double()[:, None, None]])
def test_kl_is_that_of_torch_distributions(std):
    generator = torch.Generator().manual_seed(0)
    mean, base_mean = torch.randn(2, 2, 5, 3, generator=generator, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, std), Normal(base_mean, std)).mean((1, 2))
    torch.testing.assert_close(gaussian_kl(mean, base_mean, std), expected)


def test_kl_is_the_expected_log_ratio():
    """KL = E_policy[log policy - log base], by a draw of 100,000 dimensions."""
    generator = torch.Generator().manual_seed(0)
    mean, base_mean = torch.randn(2, 1, 100_000, generator=generator)
    x_next = mean + 0.8 * torch.randn(mean.shape, generator=generator)
    log_ratio = gaussian_log_prob(x_next, mean, 0.8) - gaussian_log_prob(x_next, base_mean, 0.8)
    kl = gaussian_kl(mean, base_mean, 0.8)
    standard_error = math.sqrt(2 / 0.8**2 / 100_000)
    assert (log_ratio - kl).abs().item() < 4 * standard_error


def test_kl_to_itself_is_zero_and_stays_fp32():
    mean = torch.randn(2, 3)
    kl = gaussian_kl(mean, mean, torch.ones(2, 1).double())
    assert torch.equal(kl, torch.zeros(2))
    assert kl.dtype == torch.float32


def test_dpo_loss_by_hand_and_its_gradient():
    """margin = (0.9 - 0.8) - (0.4 - 0.5) = 0.2; d loss / d e_w = beta / 2 sigmoid(-beta / 2 margin)."""
    winner, loser = torch.tensor([0.4], requires_grad=True), torch.tensor([0.9], requires_grad=True)
    loss, metrics = dpo_loss(winner, loser, torch.tensor([0.5]), torch.tensor([0.8]), beta=10.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    slope = 5 / (1 + math.exp(1))
    assert winner.grad.item() == pytest.approx(slope)
    assert loser.grad.item() == pytest.approx(-slope)
    assert metrics["dpo_accuracy"] == 1


def test_dpo_loss_refuses_a_beta_that_teaches_nothing():
    with pytest.raises(ValueError, match="beta=0"):
        dpo_loss(*torch.zeros(4, 1), beta=0)
