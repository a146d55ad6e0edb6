import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixgrpo.algorithm.advantage import combine, group_advantages

finite_rewards = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=12)


def close(left, right):
    torch.testing.assert_close(left, torch.tensor(right, dtype=torch.float64))


def test_advantages_by_hand():
    close(group_advantages(torch.tensor([[1.0, 2.0, 3.0]])), [[-1.0, 0.0, 1.0]])
    # 0, 0, 0, 4: mean 1, std 2.
    close(group_advantages(torch.tensor([[0, 0, 0, 4]])), [[-0.5, -0.5, -0.5, 1.5]])


def test_each_prompt_is_its_own_group():
    rewards_PG = torch.tensor([[1.0, 2.0, 3.0], [30.0, 10.0, 20.0]])
    close(group_advantages(rewards_PG), [[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -27.3, 1e6 / 7])
def test_equal_rewards_give_exactly_zero(value, dtype):
    rewards_PG = torch.full((2, 12), value, dtype=dtype)
    assert torch.equal(group_advantages(rewards_PG), torch.zeros(2, 12, dtype=torch.float64))


def test_a_spread_that_fp32_would_lose_still_counts():
    rewards_PG = torch.tensor([[1e6, 1e6 + 1 / 64, 1e6 + 2 / 64]], dtype=torch.float64)
    torch.testing.assert_close(
        group_advantages(rewards_PG),
        torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64),
        rtol=0,
        atol=1e-6,
    )


@settings(deadline=None)
@given(finite_rewards, st.floats(0.1, 100), st.floats(-100, 100))
def test_advantages_are_standardised_and_free_of_the_rewards_scale(rewards, scale, offset):
    rewards_PG = torch.tensor([rewards], dtype=torch.float64)
    advantages = group_advantages(rewards_PG)
    num_images = len(rewards)
    assert advantages.dtype == torch.float64
    assert advantages.abs().max() <= (num_images - 1) / num_images**0.5 + 1e-9
    if rewards_PG.std() > 1:
        assert advantages.mean().abs() < 1e-9
        assert advantages.std().item() == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(
            group_advantages(scale * rewards_PG + offset), advantages, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_failed_reward_stops_and_says_which(bad):
    rewards_PG = torch.zeros(3, 4)
    rewards_PG[1, 2] = bad
    with pytest.raises(ValueError, match=f"prompt 1, image 2 is {bad}, want a finite number"):
        group_advantages(rewards_PG)


@pytest.mark.parametrize("shape", [(12,), (2, 1), (2, 3, 4)])
def test_rewards_that_are_not_groups_are_refused(shape):
    with pytest.raises(ValueError, match="one row per prompt"):
        group_advantages(torch.zeros(shape))


def test_combine_by_hand():
    advantages = {"a": torch.tensor([[1.0, -1.0]]), "b": torch.tensor([[3.0, 7.0]])}
    # Weights 1 : 3 are 0.25 and 0.75.
    merged = combine(advantages, {"b": 3.0, "a": 1.0}, clip=5.0)
    torch.testing.assert_close(merged, torch.tensor([[2.5, 5.0]]))
    torch.testing.assert_close(combine(advantages, {"a": 1.0, "b": 0.0}, 5.0), advantages["a"])


def test_combine_clips_on_both_sides():
    merged = combine({"a": torch.tensor([[-9.0, -5.0, 0.0, 5.0, 9.0]])}, {"a": 1.0}, clip=5.0)
    assert merged.tolist() == [[-5.0, -5.0, 0.0, 5.0, 5.0]]


@settings(deadline=None)
@given(st.floats(0.01, 100))
def test_only_the_proportion_of_the_weights_counts(scale):
    advantages = {name: group_advantages(torch.randn(2, 12)) for name in "abc"}
    weights = {"a": 1.0, "b": 2.0, "c": 0.5}
    scaled = {name: scale * weight for name, weight in weights.items()}
    torch.testing.assert_close(combine(advantages, scaled, 5.0), combine(advantages, weights, 5.0))


def test_one_reward_passes_through_unchanged_in_float64():
    advantages = group_advantages(torch.randn(2, 12))
    merged = combine({"a": advantages}, {"a": 0.3}, clip=5.0)
    assert torch.equal(merged, advantages)
    assert merged.dtype == torch.float64


ONE = torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("advantages", "weights", "clip", "message"),
    [
        ({}, {}, 5.0, "one weight to each reward"),
        ({"a": ONE}, {"a": 1.0, "b": 1.0}, 5.0, r"advantages of \['a'\], weights of \['a', 'b'\]"),
        ({"a": ONE, "b": ONE}, {"a": 1.0}, 5.0, "no other"),
        ({"a": ONE}, {"a": -1.0}, 5.0, "must be 0 or more"),
        ({"a": ONE, "b": ONE}, {"a": 2.0, "b": -1.0}, 5.0, "must be 0 or more"),
        ({"a": ONE}, {"a": 0.0}, 5.0, "at least one of them above 0"),
        ({"a": ONE}, {"a": float("nan")}, 5.0, "must be 0 or more"),
        ({"a": ONE}, {"a": float("inf")}, 5.0, "must be 0 or more"),
        ({"a": ONE, "b": torch.zeros(2, 2)}, {"a": 1.0, "b": 1.0}, 5.0, "score the same images"),
        ({"a": ONE}, {"a": 1.0}, 0.0, r"clip=0\.0 must be positive"),
    ],
)
def test_what_cannot_be_merged_is_refused(advantages, weights, clip, message):
    with pytest.raises(ValueError, match=message):
        combine(advantages, weights, clip)
