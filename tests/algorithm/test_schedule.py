from fractions import Fraction

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from mixgrpo.algorithm.nfe import rollout_nfe
from mixgrpo.algorithm.schedule import flash_sigmas, num_tail_steps, sd3_sigmas, shifted_sigmas


def unshifted(sigmas, shift):
    """u of sigma: the inverse of the time shift."""
    return sigmas / (shift - (shift - 1) * sigmas)


@settings(deadline=None)
@given(num_steps=st.integers(1, 60), shift=st.floats(0.05, 20))
def test_a_schedule_falls_from_exactly_one_to_exactly_zero(num_steps, shift):
    sigmas = shifted_sigmas(num_steps, shift)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == num_steps + 1
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_the_papers_schedule_has_these_values():
    sigmas = shifted_sigmas(25, shift=3.0)  # u = 24/25, 1/2 (between steps), 1/25
    assert sigmas[1].item() == pytest.approx(2.88 / 2.92, abs=1e-15)
    assert sigmas[24].item() == pytest.approx(0.12 / 1.08, abs=1e-15)
    assert shifted_sigmas(2, shift=3.0)[1].item() == pytest.approx(0.75, abs=1e-15)


def test_shift_1_leaves_the_steps_uniform():
    torch.testing.assert_close(
        shifted_sigmas(10, shift=1.0), torch.linspace(1, 0, 11, dtype=torch.float64)
    )


@settings(deadline=None)
@given(
    start=st.integers(0, 20),
    size=st.integers(1, 4),
    shift=st.floats(0.2, 5),
    tail_ratio=st.floats(0.01, 1),
)
def test_flash_keeps_the_steps_up_to_the_window_and_spaces_its_tail_in_u(
    start, size, shift, tail_ratio
):
    window = range(start, start + size)
    sigmas = flash_sigmas(25, shift, window, tail_ratio)
    assert torch.equal(sigmas[: window.stop + 1], shifted_sigmas(25, shift)[: window.stop + 1])
    tail = unshifted(sigmas[window.stop :], shift).diff()
    torch.testing.assert_close(tail, tail[:1].expand_as(tail), rtol=0, atol=1e-12)
    assert sigmas[-1] == 0
    assert len(sigmas) - 1 == rollout_nfe(25, window, tail_ratio)


@pytest.mark.parametrize("start", [0, 7, 20])
def test_flash_at_ratio_1_is_the_whole_schedule(start):
    torch.testing.assert_close(
        flash_sigmas(25, 3.0, range(start, start + 4), tail_ratio=1.0),
        shifted_sigmas(25, 3.0),
        rtol=0,
        atol=1e-15,
    )


def test_the_number_of_tail_steps_is_exact_where_floating_point_is_not():
    assert 100 * 0.29 < 29  # what a plain floor would trip over
    for num_steps in range(2, 110):
        for percent in range(1, 101):
            exact = max(1, (num_steps - 1) * Fraction(percent, 100) // 1)
            assert num_tail_steps(num_steps, range(1), percent / 100) == exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shifted_sigmas(0, 3.0), "num_steps=0 must be 1 or more"),
        (lambda: shifted_sigmas(25, 0.0), r"shift=0\.0 must be positive"),
        (lambda: flash_sigmas(25, 3.0, range(22, 25), 0.4), "leaves no tail in num_steps=25"),
        (lambda: flash_sigmas(25, 3.0, range(-1, 3), 0.4), "start at 0 or later"),
        (lambda: flash_sigmas(25, 3.0, range(4), 0.0), r"tail_ratio=0\.0 must be in \(0, 1\]"),
        (lambda: flash_sigmas(25, 3.0, range(4), 1.1), r"tail_ratio=1\.1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [2, 10, 28, 40])
def test_sd3_schedule_is_that_of_its_own_scheduler(num_steps, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    scheduler.set_timesteps(num_steps)
    sigmas = sd3_sigmas(num_steps, shift)
    torch.testing.assert_close(sigmas.float(), scheduler.sigmas, rtol=0, atol=1e-6)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
