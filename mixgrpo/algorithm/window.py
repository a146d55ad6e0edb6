"""The sliding window (section 3.2): the steps sampled by SDE and optimised, at each iteration.

The window is a pure function of the iteration: resuming, plotting and testing need no state. Its
start l runs over 0..T', T' = T - 1 - w: the last step, into sigma = 0, is never optimised.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from mixgrpo.config import WindowConfig

__all__ = ["INTERVALS", "STRATEGIES", "WindowConfig", "window_at", "windows_of_run"]


def window_at(config: WindowConfig, num_steps: int, iteration: int, seed: int = 0) -> range:
    """S = [l, l + w): the steps sampled by SDE and optimised at `iteration` >= 0 (Eq. 10).

    `seed` matters to the random strategy only.

    >>> [window_at(WindowConfig(size=2, interval=2), 5, m).start for m in range(8)]
    [0, 0, 1, 1, 2, 2, 0, 0]
    """
    last_start = num_steps - 1 - config.size
    if last_start < 0:
        raise ValueError(
            f"window.size={config.size} does not fit num_steps={num_steps}: the last step is never "
            f"optimised, so the size is at most {num_steps - 1}. Shrink the window or add steps."
        )
    if iteration < 0:
        raise ValueError(f"iteration={iteration} must be 0 or more: the first iteration is 0.")
    start = STRATEGIES[config.strategy](config, last_start, iteration, seed)
    return range(start, start + config.size)


def windows_of_run(
    config: WindowConfig, num_steps: int, num_iterations: int, *, clock: int = 1, seed: int = 0
) -> list[range]:
    """The window of every iteration of a run, each standing for `clock` iterations of the paper's.

    >>> [window.start for window in windows_of_run(WindowConfig(interval=25), 25, 6, clock=50)]
    [0, 2, 4, 6, 8, 10]
    """
    return [window_at(config, num_steps, m * clock, seed) for m in range(num_iterations)]


def progressive(config: WindowConfig, last_start: int, iteration: int, seed: int) -> int:
    """l moves by the stride s whenever its interval tau(l) is over (Algorithm 1).

    When the next start would pass T', it is 0 again (`restart`), or T' for good (`hold`).
    """
    starts = list(range(0, last_start + 1, config.stride))
    if config.at_end == "hold" and starts[-1] < last_start:
        starts.append(last_start)
    interval = INTERVALS[config.interval_schedule]
    ends = list(accumulate(interval(config, start, last_start) for start in starts))
    if config.at_end == "restart":
        iteration %= ends[-1]
    return starts[min(bisect_right(ends, iteration), len(starts) - 1)]


def random_start(config: WindowConfig, last_start: int, iteration: int, seed: int) -> int:
    """l uniform in 0..T', from (seed, iteration) alone: every process draws the same window."""
    digest = hashlib.sha256(f"window {seed} {iteration}".encode()).digest()
    return int.from_bytes(digest) % (last_start + 1)


def frozen(config: WindowConfig, last_start: int, iteration: int, seed: int) -> int:
    """l = 0: always the first w steps."""
    return 0


def constant_interval(config: WindowConfig, start: int, last_start: int) -> int:
    """tau(l) = tau_0."""
    return config.interval


def linear_interval(config: WindowConfig, start: int, last_start: int) -> int:
    """tau(l) = floor(tau_0 + (1 - tau_0) l / T'): from tau_0 at l = 0 to 1 at T', in integers.

    >>> [linear_interval(WindowConfig(interval=25), start, 20) for start in (0, 1, 10, 20)]
    [25, 23, 13, 1]
    """
    return config.interval + (1 - config.interval) * start // max(1, last_start)


def exp_interval(config: WindowConfig, start: int, last_start: int) -> int:
    """tau(l) = ceil(tau_0 exp(-k ReLU(l - threshold))), at least 1 (Eq. 11).

    >>> [exp_interval(WindowConfig(interval=20), start, 20) for start in (0, 13, 14, 20)]
    [20, 20, 19, 10]
    """
    decay = math.exp(-config.decay_rate * max(0, start - config.decay_threshold))
    return max(1, math.ceil(config.interval * decay))


INTERVALS: dict[str, Callable[[WindowConfig, int, int], int]] = {
    "constant": constant_interval,
    "linear": linear_interval,
    "exp": exp_interval,
}
"""tau by `interval_schedule`: (config, start, last_start) -> iterations (Table 4)."""

STRATEGIES: dict[str, Callable[[WindowConfig, int, int, int], int]] = {
    "progressive": progressive,
    "random": random_start,
    "frozen": frozen,
}
"""l by `strategy`: (config, last_start, iteration, seed) -> start (Table 4)."""
