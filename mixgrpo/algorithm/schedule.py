"""Noise levels of a trajectory: T shifted uniform steps (section 4.2), SD3's own, or Flash's shorter tail.

Step i goes from sigmas[i] to sigmas[i + 1]: a schedule costs `len(sigmas) - 1` evaluations.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def shifted_sigmas(num_steps: int, shift: float) -> Tensor:
    """Noise levels of T steps, uniform in u and then shifted (section 4.2).

        u_i = 1 - i / T,    sigma_i = s u_i / (1 + (s - 1) u_i),    i = 0..T

    Returns (T + 1,) float64, from sigma_0 = 1 (pure noise) down to sigma_T = 0 (image).

    >>> shifted_sigmas(4, shift=3.0)
    tensor([1.0000, 0.9000, 0.7500, 0.5000, 0.0000], dtype=torch.float64)
    """
    return shifted(_uniform(num_steps), shift)


def sd3_sigmas(num_steps: int, shift: float) -> Tensor:
    """Noise levels of T steps as SD3.5's own scheduler makes them (`FlowMatchEulerDiscreteScheduler`).

        u_i = 1 + (u_min - 1) i / (T - 1), i = 0..T-1,    u_min = shifted(1 / 1000);    sigma = shifted(u), then 0

    The last step starts close to the image (0.009 for s = 3), so it may be an SDE step (Table 3). Returns
    (T + 1,) float64.

    >>> sd3_sigmas(4, shift=3.0)
    tensor([1.0000, 0.8577, 0.6022, 0.0089, 0.0000], dtype=torch.float64)
    """
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} must be 2 or more.")
    lowest = shifted(torch.tensor(1 / SD3_TRAINING_LEVELS, dtype=torch.float64), shift).item()
    u = torch.linspace(1, lowest, num_steps, dtype=torch.float64)
    return torch.cat([shifted(u, shift), torch.zeros(1, dtype=torch.float64)])


SD3_TRAINING_LEVELS = 1000
"""Noise levels that SD3.5 was trained on."""

SCHEDULES: dict[str, Callable[[int, float], Tensor]] = {
    "shifted": shifted_sigmas,
    "sd3": sd3_sigmas,
}
"""Noise levels by `model.schedule`: (num_steps, shift) -> (T + 1,)."""


def flash_sigmas(num_steps: int, shift: float, window: range, tail_ratio: float) -> Tensor:
    """Noise levels of a Flash rollout: all steps up to the window's end, then K to 0 (Algorithm 2).

        u = u_0, .. u_{l+w}, then u_{l+w} (1 - j / K), j = 1..K,    shifted as above

    The tail is uniform in the *unshifted* u; K is `num_tail_steps`. Returns (l + w + K + 1,)
    float64.

    >>> flash_sigmas(8, shift=1.0, window=range(1, 4), tail_ratio=0.5)
    tensor([1.0000, 0.8750, 0.7500, 0.6250, 0.5000, 0.2500, 0.0000],
           dtype=torch.float64)
    """
    num_tail = num_tail_steps(num_steps, window, tail_ratio)
    until_window_end = _uniform(num_steps)[: window.stop + 1]
    tail = until_window_end[-1] * _uniform(num_tail)[1:]
    return shifted(torch.cat([until_window_end, tail]), shift)


def num_tail_steps(num_steps: int, window: range, tail_ratio: float) -> int:
    """K: steps that Flash makes of those after the window (section 9 of the paper).

        K = max(1, floor((T - l - w) r))

    >>> [num_tail_steps(25, range(start, start + 4), tail_ratio=0.4) for start in (0, 10, 20)]
    [8, 4, 1]
    """
    if not 0 <= window.start <= window.stop < num_steps:
        raise ValueError(
            f"{window} leaves no tail in num_steps={num_steps}: it must start at 0 or later and "
            "stop before the last step. Shrink the window or add steps."
        )
    if not 0 < tail_ratio <= 1:
        raise ValueError(f"tail_ratio={tail_ratio} must be in (0, 1]: 1 keeps every step.")
    # Why 1e-9: 100 * 0.29 is 28.999999999999996 in floating point, and 29 is meant.
    return max(1, math.floor((num_steps - window.stop) * tail_ratio + 1e-9))


def _uniform(num_steps: int) -> Tensor:
    """u_i = 1 - i / T: (T + 1,) float64."""
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be 1 or more.")
    return 1 - torch.arange(num_steps + 1, dtype=torch.float64) / num_steps


def shifted(u: Tensor, shift: float) -> Tensor:
    """The time shift s u / (1 + (s - 1) u), written so that u = 1 gives 1 exactly whatever the shift."""
    if not shift > 0:
        raise ValueError(f"shift={shift} must be positive: 1 leaves the steps uniform.")
    return shift * u / (shift * u + (1 - u))
