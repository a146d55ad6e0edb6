"""Multistep DPM-Solver++ on rectified flow (section 8 of the paper): the tail of MixGRPO-Flash.

With alpha = 1 - sigma and lambda = log(alpha / sigma) (Eq. 20), rectified flow is a diffusion model
that predicts x0 = x - sigma v (Eq. 18), and Eq. 21 solves its ODE in lambda. The images of a batch
move together: sigma is one number, the coefficients are Python floats, and x keeps its dtype.
"""

import math
from collections import deque
from collections.abc import Callable

from torch import Tensor

FIRST_DIFFERENCE: dict[str, Callable[[float], float]] = {
    "midpoint": lambda h: -math.expm1(-h) / 2,
    "heun": lambda h: math.expm1(-h) / h + 1,
}
"""What multiplies alpha' D1 in a step of order 2, by `solver_type` (Table 8)."""


class DPMSolver:
    """Solves one trajectory. It keeps the x0 predictions, so each trajectory needs a new solver.

    order: 1, 2 or 3; the first steps use the order that the history so far allows. solver_type:
    "midpoint" or "heun", the variant of steps of order 2.

    A rollout makes its solver after the window, without history: the window's noise would enter the
    differences. On mixtures of Gaussians that was closer to the ODE's solution (tests/algorithm).

    >>> import torch
    >>> x, solver = torch.tensor([2.0]), DPMSolver(order=2)
    >>> for sigma, sigma_next in ((0.8, 0.5), (0.5, 0.0)):
    ...     x = solver.step(x, 0.5 * x, sigma, sigma_next)
    >>> x
    tensor([0.8125])
    """

    def __init__(self, order: int, solver_type: str = "midpoint") -> None:
        if order not in (1, 2, 3):
            raise ValueError(f"order={order} must be 1, 2 or 3.")
        if solver_type not in FIRST_DIFFERENCE:
            raise ValueError(
                f"solver_type={solver_type!r} must be one of {list(FIRST_DIFFERENCE)}."
            )
        self.order = order
        self.solver_type = solver_type
        # (sigma, x0) of the latest steps, newest first
        self._history: deque[tuple[float, Tensor]] = deque(maxlen=order)

    def record(self, denoised: Tensor, sigma: float | Tensor) -> None:
        """Take into the history an x0 prediction (B, ...) that a step at `sigma` made elsewhere."""
        sigma = _number(sigma)
        if self._history and not sigma < self._history[0][0]:
            raise ValueError(
                f"sigma={sigma} does not continue a trajectory that is at sigma="
                f"{self._history[0][0]}: sigma must fall. Make a new DPMSolver for each trajectory."
            )
        self._history.appendleft((sigma, denoised))

    def step(
        self, x: Tensor, denoised: Tensor, sigma: float | Tensor, sigma_next: float | Tensor
    ) -> Tensor:
        """From x at `sigma` to x' at `sigma_next` (Eq. 21), h = lambda' - lambda.

            order 1:  x' = (sigma' / sigma) x - alpha' (e^-h - 1) D0      (the Euler step)
            order 2:       ... - alpha' (e^-h - 1) / 2 D1                 (midpoint)
                           ... + alpha' ((e^-h - 1) / h + 1) D1           (heun)
            order 3:       ... + alpha' ((e^-h - 1) / h + 1) D1
                               - alpha' ((e^-h - 1 + h) / h^2 - 1 / 2) D2
            into sigma' = 0:  x' = D0

        x, denoised: (B, ...) sample and D0, its x0 prediction. D1, D2: see `_differences`.
        """
        sigma, sigma_next = _number(sigma), _number(sigma_next)
        if not 0 <= sigma_next < sigma <= 1:
            raise ValueError(
                f"the step from sigma={sigma} to sigma_next={sigma_next} does not denoise: want "
                "1 >= sigma > sigma_next >= 0. Pass consecutive entries of the schedule."
            )
        self.record(denoised, sigma)
        if sigma_next == 0:
            return denoised
        alpha_next, h = 1 - sigma_next, log_snr(sigma_next) - log_snr(sigma)
        x_next = (sigma_next / sigma) * x - (alpha_next * math.expm1(-h)) * denoised
        match self._differences(h):
            case [d1]:
                x_next = x_next + (alpha_next * FIRST_DIFFERENCE[self.solver_type](h)) * d1
            case [d1, d2]:
                x_next = x_next + (alpha_next * FIRST_DIFFERENCE["heun"](h)) * d1
                x_next = x_next - (alpha_next * ((math.expm1(-h) + h) / h**2 - 0.5)) * d2
        return x_next

    def _differences(self, h: float) -> list[Tensor]:
        """D1, D2 from the x0 predictions m0 (newest), m1, m2: as many as the history allows.

            A = (m0 - m1) / r0,    B = (m1 - m2) / r1,    r0 = h1 / h,    r1 = h2 / h
            order 2:  D1 = A
            order 3:  D1 = A + r0 / (r0 + r1) (A - B),    D2 = (A - B) / (r0 + r1)

        h1, h2: the steps in lambda from m1 to m0 and from m2 to m1; one that starts at sigma = 1 is
        infinite, and its difference 0. D2 is half of h^2 x0'', as in DPM-Solver's own multistep
        code, so order 3 errs less than order 2 but converges with slope 2.
        """
        if len(self._history) == 1:
            return []
        (sigma0, m0), (sigma1, m1), *older = self._history
        r0 = (log_snr(sigma0) - log_snr(sigma1)) / h
        a = (m0 - m1) / r0
        if not older:
            return [a]
        ((sigma2, m2),) = older
        r1 = (log_snr(sigma1) - log_snr(sigma2)) / h
        b = (m1 - m2) / r1
        return [a + r0 / (r0 + r1) * (a - b), (a - b) / (r0 + r1)]


def log_snr(sigma: float) -> float:
    """lambda = log((1 - sigma) / sigma) (Eq. 20); -inf at sigma = 1.

    >>> log_snr(0.5), log_snr(1.0)
    (0.0, -inf)
    """
    return math.log((1 - sigma) / sigma) if sigma < 1 else -math.inf


def _number(sigma: float | Tensor) -> float:
    if isinstance(sigma, Tensor) and sigma.numel() != 1:
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)}, but the solver moves a batch at one sigma. "
            "Pass a number, or solve the images in separate batches."
        )
    return float(sigma)
