from itertools import groupby, pairwise
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixgrpo.algorithm.window import (
    INTERVALS,
    STRATEGIES,
    WindowConfig,
    window_at,
    windows_of_run,
)


def starts_of(config, num_iterations, num_steps=25, seed=0):
    return [window_at(config, num_steps, m, seed).start for m in range(num_iterations)]


def stays_of(config, num_iterations):
    """[(start, iterations there), ...] in order."""
    starts = starts_of(config, num_iterations)
    return [(start, len(list(stay))) for start, stay in groupby(starts)]


def choices(field):
    return set(get_args(get_type_hints(WindowConfig)[field]))


def test_every_choice_of_the_config_is_a_function_here():
    assert set(STRATEGIES) == choices("strategy")
    assert set(INTERVALS) == choices("interval_schedule")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_for_2000_iterations_the_window_keeps_its_size_and_never_takes_the_last_step(data):
    size = data.draw(st.integers(1, 8))
    config = WindowConfig(
        size=size,
        stride=data.draw(st.integers(1, size)),
        interval=data.draw(st.integers(1, 40)),
        strategy=data.draw(st.sampled_from(sorted(choices("strategy")))),
        interval_schedule=data.draw(st.sampled_from(sorted(choices("interval_schedule")))),
        decay_rate=data.draw(st.floats(0, 1000)),
        decay_threshold=data.draw(st.integers(0, 30)),
        at_end=data.draw(st.sampled_from(sorted(choices("at_end")))),
    )
    num_steps = data.draw(st.integers(size + 1, 30))
    last_start = num_steps - 1 - size
    windows = [window_at(config, num_steps, m, seed=3) for m in range(2000)]
    assert windows[0].start == 0 or config.strategy == "random"
    for window in windows:
        assert len(window) == size
        assert window.step == 1
        assert 0 <= window.start <= last_start
    if config.strategy == "progressive":
        for here, after in pairwise(window.start for window in windows):
            back_or_at_the_end = {"restart": 0, "hold": last_start}[config.at_end]
            assert after in (here, here + config.stride, back_or_at_the_end)
            if after not in (here, here + config.stride):
                assert here + config.stride > last_start


def test_progressive_constant_is_the_papers_schedule():
    assert starts_of(WindowConfig(), 300) == [m // 25 for m in range(300)]
    assert stays_of(WindowConfig(interval=20), 300) == [(start, 20) for start in range(15)]
    assert window_at(WindowConfig(), 25, 0) == range(0, 4)
    assert window_at(WindowConfig(), 25, 299) == range(11, 15)


def test_linear_decay_goes_from_tau_0_to_1():
    tau = [25, 23, 22, 21, 20, 19, 17, 16, 15, 14, 13, 11, 10, 9, 8, 7, 5, 4, 3, 2, 1]
    config = WindowConfig(interval_schedule="linear")  # 25 - 1.2 l, rounded down
    assert stays_of(config, sum(tau)) == list(enumerate(tau))
    assert window_at(config, 25, sum(tau)).start == 0


def test_exp_decay_starts_at_the_threshold():
    tau = [20] * 14 + [19, 17, 15, 14, 13, 11, 10]  # 20 exp(-0.1 (l - 13)), rounded up
    config = WindowConfig(interval=20, interval_schedule="exp")
    assert stays_of(config, sum(tau)) == list(enumerate(tau))
    assert window_at(config, 25, sum(tau)).start == 0


def test_exp_decay_stays_at_least_one_iteration_everywhere():
    config = WindowConfig(interval=3, interval_schedule="exp", decay_rate=1e4, decay_threshold=17)
    assert stays_of(config, 57)[-4:] == [(17, 3), (18, 1), (19, 1), (20, 1)]


def test_at_the_end_the_window_restarts_or_holds_at_its_last_position():
    restart = WindowConfig(stride=3, interval=2)
    hold = WindowConfig(stride=3, interval=2, at_end="hold")
    way = [0, 0, 3, 3, 6, 6, 9, 9, 12, 12, 15, 15, 18, 18]  # the next, 21, would pass T' = 20
    assert starts_of(restart, 18) == [*way, 0, 0, 3, 3]
    assert starts_of(hold, 18) == [*way, 20, 20, 20, 20]
    assert window_at(hold, 25, 10**9) == range(20, 24)


@pytest.mark.parametrize("interval_schedule", sorted(INTERVALS))
@pytest.mark.parametrize("at_end", ["restart", "hold"])
def test_a_window_with_one_position_stays_there(interval_schedule, at_end):
    config = WindowConfig(interval=2, interval_schedule=interval_schedule, at_end=at_end)
    assert starts_of(config, 50, num_steps=5) == [0] * 50


def test_frozen_never_moves():
    assert starts_of(WindowConfig(strategy="frozen"), 1000) == [0] * 1000


def test_random_comes_from_the_seed_and_the_iteration_alone():
    config = WindowConfig(strategy="random")
    golden = [4, 15, 4, 11, 8, 0, 11, 16, 11, 12, 20, 14]
    torch.manual_seed(1)
    assert starts_of(config, 12) == golden
    torch.manual_seed(2)
    assert [window_at(config, 25, m).start for m in reversed(range(12))] == golden[::-1]
    assert starts_of(config, 12, seed=1) != golden


def test_random_is_uniform_over_all_positions():
    starts = torch.tensor(starts_of(WindowConfig(strategy="random"), 4200))
    counts = torch.bincount(starts, minlength=21)
    assert len(counts) == 21  # T' = 20 is the largest
    chi_squared = ((counts - 200) ** 2 / 200).sum()
    assert chi_squared < 37.6  # the 99 % point at 20 degrees of freedom


def test_the_clock_walks_the_same_path_in_fewer_iterations():
    config = WindowConfig(interval=20)
    whole = windows_of_run(config, 25, 300)
    assert whole == [window_at(config, 25, m) for m in range(300)]
    assert windows_of_run(config, 25, 60, clock=5) == whole[::5]


def test_windows_of_a_run_take_its_seed():
    config = WindowConfig(strategy="random")
    windows = windows_of_run(config, 25, 20, seed=7)
    assert windows == [window_at(config, 25, m, seed=7) for m in range(20)]


def test_a_window_that_does_not_fit_is_refused():
    assert window_at(WindowConfig(size=24), 25, 0) == range(24)
    with pytest.raises(ValueError, match=r"window\.size=25 does not fit .* at most 24\. Shrink"):
        window_at(WindowConfig(size=25), 25, 0)


def test_a_negative_iteration_is_refused():
    with pytest.raises(ValueError, match="iteration=-1 must be 0 or more"):
        window_at(WindowConfig(), 25, -1)
