"""DPM-Solver++ against the exact flow of Gaussians, and against ODEs that it must solve exactly."""

import math
from itertools import pairwise

import pytest
import torch

from mixgrpo.algorithm.dpm import DPMSolver, log_snr
from mixgrpo.algorithm.schedule import shifted_sigmas
from mixgrpo.algorithm.transition import ode_step, predict_denoised

SOLVERS = [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")]


def gaussian_denoised(x, sigma):
    """E[x0 | x_sigma = x] when the data are N(2, 0.5^2)."""
    alpha = 1 - sigma
    return 2.0 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x - alpha * 2.0)


def gaussian_path(z, sigma):
    """The exact ODE solution of that flow through the noise z at sigma = 1."""
    return (1 - sigma) * 2.0 + math.hypot((1 - sigma) * 0.5, sigma) * z


def solve(x, sigmas, solver):
    for sigma, sigma_next in pairwise(sigmas):
        x = solver.step(x, gaussian_denoised(x, sigma), sigma, sigma_next)
    return x


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lambdas_to_sigmas(lambdas):
    return [1 / (1 + math.exp(value)) for value in lambdas]


# --- exact identities -----------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("num_steps", [1, 2, 25])
def test_order_1_is_euler(num_steps, shift):
    solver, x = DPMSolver(order=1), noise(5, 1)
    for sigma, sigma_next in pairwise(shifted_sigmas(num_steps, shift)):
        v = (x - gaussian_denoised(x, sigma)) / sigma
        euler = ode_step(x, v, sigma, sigma_next)
        x = solver.step(x, predict_denoised(x, v, sigma), sigma, sigma_next)
        torch.testing.assert_close(x, euler, rtol=0, atol=1e-14)


def linear_step(solver, lambdas, slope):
    """One step, its history recorded, where x0 = 1 + slope lambda; with the exact solution.

    x' = (sigma' / sigma) x + sigma' int e^lambda x0(lambda) d lambda.
    """
    *before, sigma, sigma_next = lambdas_to_sigmas(lambdas)

    def prediction(at):
        return torch.tensor([1 + slope * log_snr(at)], dtype=torch.float64)

    for at in before:
        solver.record(prediction(at), at)
    x = torch.tensor([0.7], dtype=torch.float64)

    def integral(at):
        return math.exp(log_snr(at)) * (1 + slope * (log_snr(at) - 1))

    exact = sigma_next / sigma * x + sigma_next * (integral(sigma_next) - integral(sigma))
    return solver.step(x, prediction(sigma), sigma, sigma_next), exact


@pytest.mark.parametrize(("order", "solver_type"), [(2, "heun"), (3, "midpoint")])
def test_a_prediction_linear_in_lambda_is_solved_exactly(order, solver_type):
    result, exact = linear_step(DPMSolver(order, solver_type), [-2.0, -1.2, -0.5, 0.4], slope=1.5)
    torch.testing.assert_close(result, exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2])
def test_order_1_and_midpoint_are_not_exact_there(order):
    result, exact = linear_step(DPMSolver(order), [-2.0, -1.2, -0.5, 0.4], slope=1.5)
    assert (result - exact).abs() > 1e-3


def test_midpoint_by_hand():
    """sigma 0.8, 0.5, 0.2: lambda -log 4, 0, log 4, so r0 = 1 and e^-h = 1/4 in the second step."""
    solver = DPMSolver(order=2)
    solver.record(torch.tensor([1.0]), 0.8)
    x_next = solver.step(torch.tensor([2.0]), torch.tensor([3.0]), 0.5, 0.2)
    # 0.2 / 0.5 * 2 + 0.8 * 3/4 * (3 + (3 - 1) / 2) = 0.8 + 2.4
    torch.testing.assert_close(x_next, torch.tensor([3.2]))


def test_order_3_takes_half_of_the_second_derivative():
    """x0 = lambda^2 on an uneven grid: D2 is h^2, and the exact solution needs it twice."""
    lambdas = [-2.0, -1.1, -0.5, 0.4]
    before_last, last, sigma, sigma_next = lambdas_to_sigmas(lambdas)
    solver, h = DPMSolver(order=3), 0.9
    for at in (before_last, last):
        solver.record(torch.tensor([log_snr(at) ** 2], dtype=torch.float64), at)
    x = torch.tensor([0.7], dtype=torch.float64)
    result = solver.step(x, torch.tensor([0.25], dtype=torch.float64), sigma, sigma_next)

    def integral(at):
        return math.exp(at) * (at**2 - 2 * at + 2)

    exact = sigma_next / sigma * x + sigma_next * (integral(0.4) - integral(-0.5))
    second_term = (1 - sigma_next) * ((math.exp(-h) - 1 + h) / h**2 - 0.5) * h**2
    torch.testing.assert_close(result, exact + second_term, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("order", "solver_type"), SOLVERS)
def test_the_step_into_sigma_0_returns_the_prediction(order, solver_type):
    solver = DPMSolver(order, solver_type)
    x, denoised = noise(5, 1), noise(5, 1, seed=1)
    for sigma in (0.9, 0.7):
        solver.record(noise(5, 1, seed=2), sigma)
    assert torch.equal(solver.step(x, denoised, 0.5, 0.0), denoised)


@pytest.mark.parametrize("order", [2, 3])
def test_a_difference_that_reaches_back_to_pure_noise_is_zero(order):
    """The second step is Euler's; in the third, order 3 uses one difference where order 2 does."""
    predictions = [noise(5, 1, seed=k) for k in range(3)]
    full, euler, second = DPMSolver(order), DPMSolver(1), DPMSolver(2, "heun")
    x = noise(5, 1, seed=9)
    full.step(x, predictions[0], 1.0, 0.8)
    step = full.step(x, predictions[1], 0.8, 0.6)
    torch.testing.assert_close(step, euler.step(x, predictions[1], 0.8, 0.6))
    if order == 3:
        second.record(predictions[1], 0.8)
        expected = second.step(x, predictions[2], 0.6, 0.3)  # B = D2 = 0, so D1 = A
        torch.testing.assert_close(full.step(x, predictions[2], 0.6, 0.3), expected)


def test_early_steps_use_the_order_that_the_history_allows():
    predictions, x = [noise(5, 1, seed=k) for k in range(3)], noise(5, 1, seed=9)
    grid = [0.9, 0.7, 0.5, 0.3]

    def steps(solver):
        return [
            solver.step(x, prediction, *pair)
            for prediction, pair in zip(predictions, pairwise(grid), strict=True)
        ]

    first, second, third = (
        steps(DPMSolver(1)),
        steps(DPMSolver(2, "heun")),
        steps(DPMSolver(3, "heun")),
    )
    assert torch.equal(third[0], first[0])
    assert torch.equal(third[1], second[1])
    assert not torch.equal(second[1], first[1])
    assert not torch.equal(third[2], second[2])


def test_the_solver_type_matters_at_order_2_alone():
    def three_steps(order, solver_type):
        solver = DPMSolver(order, solver_type)
        for k, sigma in enumerate((0.9, 0.8)):
            solver.record(noise(5, 1, seed=k), sigma)
        return solver.step(noise(5, 1, seed=8), noise(5, 1, seed=9), 0.7, 0.4)

    for order, matters in ((1, False), (2, True), (3, False)):
        same = torch.equal(three_steps(order, "midpoint"), three_steps(order, "heun"))
        assert same != matters


# --- accuracy -------------------------------------------------------------------------------------


def final_error(order, solver_type, num_steps):
    """Error at sigma = 0.1 from sigma = 0.9, uniform in lambda, with two *exact* steps of history.

    Without them the first steps are of lower order, and so is the slope that one would see.
    """
    first, last = log_snr(0.9), log_snr(0.1)
    h = (last - first) / num_steps
    grid = lambdas_to_sigmas([first + h * k for k in range(-2, num_steps + 1)])
    z, solver = (
        torch.tensor([[0.3], [-1.2], [2.0]], dtype=torch.float64),
        DPMSolver(order, solver_type),
    )
    for sigma in grid[:2]:
        solver.record(gaussian_denoised(gaussian_path(z, sigma), sigma), sigma)
    x = solve(gaussian_path(z, grid[2]), grid[2:], solver)
    return (x - gaussian_path(z, grid[-1])).abs().max().item()


@pytest.mark.parametrize(
    ("order", "solver_type", "slope"),
    [(1, "midpoint", 1), (2, "midpoint", 2), (2, "heun", 2), (3, "midpoint", 2)],
)
def test_the_error_falls_with_the_order(order, solver_type, slope):
    errors = [final_error(order, solver_type, num_steps) for num_steps in (80, 160, 320)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(slope, abs=0.1)


def test_a_higher_order_errs_less():
    euler, midpoint, third = (final_error(order, "midpoint", 40) for order in (1, 2, 3))
    assert third < midpoint < euler / 10


@pytest.mark.parametrize(("order", "solver_type"), SOLVERS)
def test_whole_trajectories_reach_the_exact_images(order, solver_type):
    z = noise(100, 1)
    sigmas = shifted_sigmas(400, 3.0).tolist()
    x = solve(z, sigmas, DPMSolver(order, solver_type))
    error = (x - gaussian_path(z, 0.0)).abs().max()
    assert error < {1: 2e-2, 2: 2e-3, 3: 2e-3}[order]


def test_a_sigma_may_be_a_tensor_of_the_schedule():
    z, sigmas = noise(5, 1).float(), shifted_sigmas(10, 3.0)
    solver, other = DPMSolver(2), DPMSolver(2)
    x = y = z
    for sigma, sigma_next in pairwise(sigmas):
        x = solver.step(x, gaussian_denoised(x, sigma.item()), sigma, sigma_next)
        y = other.step(y, gaussian_denoised(y, sigma.item()), sigma.item(), sigma_next.item())
        assert torch.equal(x, y)
        assert x.dtype == torch.float32


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "order=0 must be 1, 2 or 3"),
        ((4,), "order=4"),
        ((2, "euler"), r"solver_type='euler' must be one of \['midpoint', 'heun'\]"),
    ],
)
def test_an_unknown_solver_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DPMSolver(*arguments)


@pytest.mark.parametrize(("sigma", "sigma_next"), [(0.5, 0.5), (0.5, 0.6), (1.1, 0.5), (0.5, -0.1)])
def test_a_step_that_does_not_denoise_is_refused(sigma, sigma_next):
    with pytest.raises(ValueError, match="does not denoise"):
        DPMSolver(2).step(noise(1, 1), noise(1, 1), sigma, sigma_next)


@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.5])
def test_a_solver_is_not_used_for_a_second_trajectory(sigma):
    solver = DPMSolver(2)
    solver.step(noise(1, 1), noise(1, 1), 0.5, 0.3)
    with pytest.raises(ValueError, match="Make a new DPMSolver for each trajectory"):
        solver.step(noise(1, 1), noise(1, 1), sigma, 0.2)


def test_a_sigma_for_each_image_is_refused():
    sigma = torch.tensor([0.5, 0.6])[:, None]
    with pytest.raises(ValueError, match=r"shape \(2, 1\).* a batch at one sigma"):
        DPMSolver(2).step(noise(2, 1), noise(2, 1), sigma, 0.1)
