"""Flash's tail as a rollout runs it, on a mixture of Gaussians, whose velocity is known exactly."""

from itertools import pairwise

import pytest
import torch

from mixgrpo.algorithm.dpm import DPMSolver
from mixgrpo.algorithm.schedule import flash_sigmas
from mixgrpo.algorithm.transition import flow_grpo_noise, ode_step, sde_transition


class Mixture:
    """x0 ~ an equal mixture of N(centers_k, std^2 I); its flow has a closed form."""

    def __init__(self, centers, std):
        self.centers = torch.as_tensor(centers, dtype=torch.float64)
        self.std = std

    def denoised(self, x, sigma):
        """E[x0 | x_sigma = x], x (B, D)."""
        alpha = 1 - sigma
        variance = (alpha * self.std) ** 2 + sigma**2
        centers = self.centers.to(x.dtype)
        distance = x[:, None] - alpha * centers
        weight = torch.softmax(-distance.square().sum(-1) / (2 * variance), -1)
        posterior = centers + alpha * self.std**2 / variance * distance
        return (weight[..., None] * posterior).sum(1)

    def velocity(self, x, sigma):
        return (x - self.denoised(x, sigma)) / sigma


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solve(mixture, x, sigmas, solver):
    for sigma, sigma_next in pairwise(sigmas):
        x = solver.step(x, mixture.denoised(x, sigma), sigma, sigma_next)
    return x


@pytest.mark.parametrize(
    ("order", "solver_type"), [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")]
)
def test_fp32_images_stay_fp32_and_lose_nothing(order, solver_type):
    mixture, z = Mixture(noise(8, 32), std=0.5), noise(16, 32, seed=1)
    sigmas = flash_sigmas(25, 3.0, range(0, 4), 0.4).tolist()
    exact = solve(mixture, z, sigmas, DPMSolver(order, solver_type))
    x = solve(mixture, z.float(), sigmas, DPMSolver(order, solver_type))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=2e-5)


def tail_error(mixture, window, tail_ratio, *, carry):
    """RMS distance of a Flash rollout's images from the fine solution of its ODE after the window."""
    sigmas = flash_sigmas(25, 3.0, window, tail_ratio).tolist()
    generator = torch.Generator().manual_seed(7)
    x, solver = noise(64, 32, seed=5), DPMSolver(order=2)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas[: window.stop + 1])):
        v = mixture.velocity(x, sigma)
        if carry:
            solver.record(mixture.denoised(x, sigma), sigma)
        if i in window:
            mean, std = sde_transition(x, v, sigma, sigma_next, flow_grpo_noise(sigma, sigmas, 0.7))
            x = mean + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        else:
            x = ode_step(x, v, sigma, sigma_next)
    u = (1 - window.stop / 25) * torch.linspace(1, 0, 201, dtype=torch.float64)
    fine = solve(mixture, x, (3 * u / (1 + 2 * u)).tolist(), DPMSolver(order=2))
    images = solve(mixture, x, sigmas[window.stop :], solver)
    return (images - fine).square().mean().sqrt().item()


@pytest.mark.parametrize("tail_ratio", [0.2, 0.4])
def test_a_fresh_solver_after_the_window_beats_one_with_the_windows_history(tail_ratio):
    """Why a rollout makes a new solver for its tail: the window's noise is in the differences.

    It never loses much, and where the noise matters it wins by far.
    """
    mixture = Mixture(noise(8, 32), std=0.8)
    windows = [range(start, start + 4) for start in (2, 6, 10)]
    fresh = [tail_error(mixture, window, tail_ratio, carry=False) for window in windows]
    carried = [tail_error(mixture, window, tail_ratio, carry=True) for window in windows]
    assert all(left < 1.05 * right for left, right in zip(fresh, carried, strict=True))
    assert sum(fresh) < 0.9 * sum(carried)
