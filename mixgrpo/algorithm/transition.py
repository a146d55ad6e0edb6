"""One denoising step (section 3.1): SDE inside the window, ODE outside, and the SDE's density.

Rectified flow: x_sigma = (1 - sigma) x0 + sigma eps, and v = dx / dsigma = eps - x0 is predicted.

`sigma`, `sigma_next` and `g` are one number for the batch, or tensors that broadcast against x, as
(B, 1, 1) does; float64, as the schedule makes them. Coefficients are computed in float64 and rounded
once to the dtype of x: x stays fp32, and both forms give the same bits. Rollout and update call
these same functions, in whichever form each has at hand, so the ratio of Eq. 8 is exactly 1 before
the first update.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Scale: TypeAlias = float | Tensor
"""One number for the whole batch, or a tensor that broadcasts against x (B, ...)."""


def flow_grpo_noise(sigma: Scale, sigmas: Sequence[float] | Tensor, eta: float) -> Tensor:
    """Noise scale of Flow-GRPO and MixGRPO; at sigma = 1 the denominator is 1 - sigma_1 (Eq. 6).

        g(sigma) = eta sqrt(sigma / (1 - sigma))

    sigmas: the schedule (T + 1,). Returns float64 in the shape of `sigma`.

    >>> sigmas = [1.0, 0.8, 0.5, 0.0]
    >>> [round(flow_grpo_noise(sigma, sigmas, eta=0.7).item(), 4) for sigma in sigmas]
    [1.5652, 1.4, 0.7, 0.0]
    """
    noise_level = _float64(sigma)
    signal_level = torch.where(noise_level < 1, 1 - noise_level, 1 - _float64(sigmas[1]))
    return eta * torch.sqrt(noise_level / signal_level)


def dance_grpo_noise(sigma: Scale, sigmas: Sequence[float] | Tensor, eta: float) -> Tensor:
    """Noise scale of DanceGRPO: g = eta throughout. Returns float64 in the shape of `sigma`."""
    return torch.full_like(_float64(sigma), eta)


NOISES: dict[str, Callable[[Scale, Sequence[float] | Tensor, float], Tensor]] = {
    "flow_grpo": flow_grpo_noise,
    "dance_grpo": dance_grpo_noise,
}
"""g by `sampling.noise`: (sigma, sigmas, eta) -> g."""


def ode_step(x: Tensor, v: Tensor, sigma: Scale, sigma_next: Scale) -> Tensor:
    """Euler step of the probability-flow ODE (Eq. 7, outside the window).

        x' = x + v d_sigma,    d_sigma = sigma_next - sigma < 0

    x, v: (B, ...) sample and predicted velocity. Returns (B, ...).
    """
    return x + v * _d_sigma(sigma, sigma_next).to(x.dtype)


def sde_transition(
    x: Tensor, v: Tensor, sigma: Scale, sigma_next: Scale, g: Scale
) -> tuple[Tensor, Tensor]:
    """Gaussian p(x' | x) of one Euler-Maruyama step (Eq. 7, inside the window).

        mean = x + [v + g^2 / (2 sigma) (x + (1 - sigma) v)] d_sigma
        std  = g sqrt(-d_sigma),    d_sigma = sigma_next - sigma < 0

    x, v: (B, ...) sample and predicted velocity. g: noise scale at `sigma`; g = 0 is the ODE step.
    Returns the mean (B, ...), and the std: one number () in float64, or (B, 1, ...) in x's dtype.
    """
    d_sigma = _d_sigma(sigma, sigma_next)
    sigma, g = _float64(sigma), _float64(g)
    score_weight, signal_level = (g**2 / (2 * sigma)).to(x.dtype), (1 - sigma).to(x.dtype)
    drift = v + score_weight * (x + signal_level * v)
    std = g * torch.sqrt(-d_sigma)
    return x + drift * d_sigma.to(x.dtype), std if std.dim() == 0 else std.to(x.dtype)


def gaussian_log_prob(x_next: Tensor, mean: Tensor, std: Scale) -> Tensor:
    """Log density of x' under N(mean, std^2), *averaged* over all but the batch dimension.

        log_prob = mean[ -(x' - mean)^2 / (2 std^2) - log std - log(2 pi) / 2 ]

    x_next, mean: (B, ...). std: one number, or (B, 1, ...). Returns (B,) in the dtype of `mean`.

    >>> gaussian_log_prob(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2), std=1.0)
    tensor([-1.9189])
    """
    std = _float64(std).to(mean.dtype).double()  # one value, whichever form it came in
    if not (std > 0).all():
        raise ValueError("std must be positive: a step with g = 0 is an ODE step, without density.")
    half_precision = (1 / (2 * std**2)).to(mean.dtype)
    log_normaliser = (std.log() + 0.5 * math.log(2 * math.pi)).to(mean.dtype)
    return latent_mean(-((x_next - mean) ** 2) * half_precision - log_normaliser)


def predict_denoised(x: Tensor, v: Tensor, sigma: Scale) -> Tensor:
    """The image that the velocity points to, x0 = x - sigma v (Eq. 18). x, v: (B, ...)."""
    return x - _float64(sigma).to(x.dtype) * v


def latent_mean(x: Tensor) -> Tensor:
    """Mean over all but the batch dimension: (B, ...) -> (B,), in the dtype of x.

    Summed in float64: an fp32 sum may change in its last bits with the size of the batch, and the
    update sees other batches than the rollout.
    """
    return x.flatten(1).mean(1, dtype=torch.float64).to(x.dtype)


def _float64(value: Scale) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _d_sigma(sigma: Scale, sigma_next: Scale) -> Tensor:
    """sigma_next - sigma in float64; refuses a step that does not go down."""
    d_sigma = _float64(sigma_next) - _float64(sigma)
    if not (d_sigma < 0).all():
        raise ValueError(
            f"the step from sigma={sigma} to sigma_next={sigma_next} does not denoise: sigma must "
            "fall. Pass consecutive entries of the schedule."
        )
    return d_sigma
