"""Costs: the paper's printed columns, and counts taken from a simulated group."""

import random

import pytest

from mixgrpo.algorithm.nfe import (
    mean_rollout_nfe,
    mean_sampling_speedup,
    rollout_evaluations,
    rollout_nfe,
    sampling_speedup,
    update_evaluations,
)
from mixgrpo.algorithm.window import WindowConfig, window_at, windows_of_run

FLASH = WindowConfig(interval=20)
FLASH_STAR = WindowConfig(strategy="frozen")


@pytest.mark.parametrize(
    ("window", "tail_ratio", "mean", "printed"),
    [
        (WindowConfig(), None, 25.0, 25),  # Table 1: MixGRPO
        (FLASH, 0.4, 16.2, 16),  # Table 1, Table 9: MixGRPO-Flash
        (FLASH_STAR, 0.2, 8.0, 8),  # Table 1, Table 9: MixGRPO-Flash*
        (FLASH, 0.6, 19.0, 19),  # Table 9
        (FLASH, 0.2, 13.4, 13),
        (FLASH_STAR, 0.4, 12.0, 12),
        (FLASH_STAR, 0.3, 10.0, 10),
    ],
)
@pytest.mark.parametrize(("num_iterations", "clock"), [(300, 1), (60, 5)])
def test_the_nfe_columns_of_tables_1_and_9(
    window, tail_ratio, mean, printed, num_iterations, clock
):
    windows = windows_of_run(window, 25, num_iterations, clock=clock)
    nfe = mean_rollout_nfe(25, windows, tail_ratio)
    assert nfe == pytest.approx(mean, abs=1e-12)
    assert round(nfe) == printed


@pytest.mark.parametrize("start", range(21))
def test_nfe_of_a_tail_by_hand(start):
    assert rollout_nfe(25, range(start, start + 4), tail_ratio=0.2) == start + 4 + max(
        1, (21 - start) // 5
    )
    assert rollout_nfe(25, range(start, start + 4)) == 25


def test_speedups_by_hand():
    assert sampling_speedup(25, range(4), 0.2) == pytest.approx(25 / 8.2)  # Eq. 22
    assert sampling_speedup(25, range(10, 14), 0.4) == pytest.approx(25 / 18.4)
    assert mean_sampling_speedup(25, [range(4), range(10, 14)], 0.4) == pytest.approx(
        (25 / 12.4 + 25 / 18.4) / 2  # Eq. 23
    )


@pytest.mark.parametrize("start", range(21))
def test_a_tail_at_ratio_1_speeds_nothing_up(start):
    assert sampling_speedup(25, range(start, start + 4), 1.0) == 1


@pytest.mark.parametrize("tail_ratio", [0.2, 0.4, 0.6])
def test_the_speedup_is_that_of_the_nfe_up_to_rounding_the_tail(tail_ratio):
    for m in range(300):
        window = window_at(FLASH, 25, m)
        real = 25 / sampling_speedup(25, window, tail_ratio)
        assert abs(rollout_nfe(25, window, tail_ratio) - real) < 1


def visited_points(nfe, sde_steps, group_size):
    """What each image is at each step, as a value that equals another's exactly when the points do."""
    points = [[()] * group_size]
    for step in range(nfe - 1):
        drawn = [(image,) if step in sde_steps else () for image in range(group_size)]
        points.append([point + draw for point, draw in zip(points[-1], drawn, strict=True)])
    return points


@pytest.mark.parametrize(
    ("nfe", "sde_steps", "group_size"),
    [(25, range(0, 4), 12), (25, range(11, 15), 12), (16, range(7, 11), 12), (25, range(24), 5)],
)
def test_rollout_evaluations_are_the_distinct_points_of_a_group(nfe, sde_steps, group_size):
    points = visited_points(nfe, sde_steps, group_size)
    distinct = sum(len(set(row)) for row in points)
    first = sde_steps.start
    assert rollout_evaluations(nfe, first, group_size, sharing=True) == distinct
    assert rollout_evaluations(nfe, first, group_size, sharing=False) == nfe * group_size


@pytest.mark.parametrize("num_updates", [1, 2, 4, 12])
@pytest.mark.parametrize("choice", ["window", "random"])
def test_update_evaluations_are_the_distinct_points_of_each_update(choice, num_updates):
    rng = random.Random(0)
    sde_steps = {"window": range(5, 9), "random": range(24)}[choice]
    trained = [sde_steps if choice == "window" else rng.sample(sde_steps, 14) for _ in range(12)]
    points = visited_points(25, sde_steps, 12)
    size = 12 // num_updates
    distinct = sum(
        len(
            {(step, points[step][image]) for image in range(i, i + size) for step in trained[image]}
        )
        for i in range(0, 12, size)
    )
    first = sde_steps.start
    shared = update_evaluations(trained, first, num_updates=num_updates, sharing=True)
    apart = update_evaluations(trained, first, num_updates=num_updates, sharing=False)
    assert shared == distinct
    assert apart == sum(map(len, trained))
    assert (shared < apart) == (num_updates < 12)


def test_a_group_that_cannot_be_dealt_is_refused():
    with pytest.raises(ValueError, match="12 images cannot be dealt into num_updates=5"):
        update_evaluations([range(4)] * 12, 0, num_updates=5, sharing=True)
