"""What rollout and update cost: the paper's NFE and speed-ups, and the evaluations really made.

NFE counts evaluations along the trajectory of *one* image, as the paper's tables do. The images of
a group have the first of them in common, from the noise up to the window's first step, so fewer are
really made: `rollout_evaluations` and `update_evaluations` count those, in images evaluated.
"""

from collections.abc import Collection, Sequence
from statistics import fmean

from mixgrpo.algorithm.schedule import num_tail_steps


def rollout_nfe(num_steps: int, window: range, tail_ratio: float | None = None) -> int:
    """NFE of pi_old: T, or l + w + K with Flash's tail (section 3.3).

    >>> rollout_nfe(25, range(0, 4)), rollout_nfe(25, range(0, 4), tail_ratio=0.2)
    (25, 8)
    """
    if tail_ratio is None:
        return num_steps
    return window.stop + num_tail_steps(num_steps, window, tail_ratio)


def mean_rollout_nfe(
    num_steps: int, windows: Collection[range], tail_ratio: float | None = None
) -> float:
    """Mean NFE of pi_old over the windows of a run: "Avg" in Tables 1 and 9.

    >>> from mixgrpo.algorithm.window import WindowConfig, windows_of_run
    >>> windows = windows_of_run(WindowConfig(interval=20), num_steps=25, num_iterations=300)
    >>> mean_rollout_nfe(25, windows, tail_ratio=0.4)
    16.2
    """
    return fmean(rollout_nfe(num_steps, window, tail_ratio) for window in windows)


def sampling_speedup(num_steps: int, window: range, tail_ratio: float) -> float:
    """Theoretical speed-up of Flash's sampling; Eq. 22 is the frozen window, l = 0.

        S(l) = T / (l + w + (T - l - w) r)

    >>> round(sampling_speedup(25, range(0, 4), tail_ratio=0.2), 3)
    3.049
    """
    return num_steps / (window.stop + (num_steps - window.stop) * tail_ratio)


def mean_sampling_speedup(num_steps: int, windows: Collection[range], tail_ratio: float) -> float:
    """Mean of S(l) over the window's positions (Eq. 23).

    >>> windows = [range(start, start + 4) for start in range(21)]
    >>> round(mean_sampling_speedup(25, windows, tail_ratio=0.4), 3)
    1.416
    """
    return fmean(sampling_speedup(num_steps, window, tail_ratio) for window in windows)


def rollout_evaluations(nfe: int, first_sde_step: int, group_size: int, *, sharing: bool) -> int:
    """Images that the network evaluates to sample one group.

        with sharing:  (l + 1) + G (nfe - l - 1),    without:  G nfe

    nfe: of one trajectory. first_sde_step: l; until it has drawn, the group is one point.

    >>> [rollout_evaluations(25, 5, group_size=12, sharing=on) for on in (True, False)]
    [234, 300]
    """
    num_shared = first_sde_step + 1 if sharing else 0
    return num_shared + group_size * (nfe - num_shared)


def update_evaluations(
    trained_steps: Sequence[Collection[int]],
    first_sde_step: int,
    *,
    num_updates: int,
    sharing: bool,
) -> int:
    """Images that the network evaluates, forward and backward, to train on one group.

    trained_steps: for each of the G images, in the order in which they are dealt into `num_updates`
    equal parts, the steps of its loss. With sharing, the images of one part have one evaluation of
    the first SDE step in common: they all start it from the same point.

    >>> window = range(5, 9)
    >>> [update_evaluations([window] * 12, 5, num_updates=4, sharing=on) for on in (True, False)]
    [40, 48]
    """
    part_size, remainder = divmod(len(trained_steps), num_updates)
    if remainder:
        raise ValueError(
            f"{len(trained_steps)} images cannot be dealt into num_updates={num_updates} equal "
            "parts. Choose num_updates that divides the group size."
        )
    num_evaluations = sum(len(steps) for steps in trained_steps)
    if sharing:
        trains_first = [first_sde_step in steps for steps in trained_steps]
        for i in range(0, len(trained_steps), part_size):
            num_evaluations -= max(0, sum(trains_first[i : i + part_size]) - 1)
    return num_evaluations
