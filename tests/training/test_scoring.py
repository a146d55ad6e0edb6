"""Rewards elsewhere score from the first images on; scores, their order and their seconds do not suffer."""

import threading
import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mixgrpo.errors import RewardError
from mixgrpo.rewards import CheckedReward
from mixgrpo.training.scoring import Scoring, score_all

IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a", "b", "c"] * 2
TIMEOUT = 10


class Meeting:
    """A reward that returns only when all that were asked to meet are scoring at the same time."""

    def __init__(self, name: str, barrier: threading.Barrier, channel: int = 0):
        self.name, self.barrier, self.channel = name, barrier, channel
        self.grad_enabled = True

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.grad_enabled = torch.is_grad_enabled()
        self.barrier.wait(TIMEOUT)
        return images[:, self.channel].mean((1, 2))


class Slow:
    def __init__(self, name: str, seconds: float):
        self.name, self.seconds = name, seconds

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        time.sleep(self.seconds)
        return torch.zeros(len(images))


def test_two_elsewhere_and_a_local_one_score_at_the_same_time_and_keep_their_order():
    barrier = threading.Barrier(3)
    rewards = [Meeting(name, barrier, i) for i, name in enumerate(("far", "here", "away"))]
    checked = [CheckedReward(r.name, r, elsewhere=r.name != "here") for r in rewards]
    scored = score_all(checked, IMAGES, PROMPTS)
    assert list(scored) == ["far", "here", "away"]
    for i, name in enumerate(scored):
        assert torch.equal(scored[name].scores, IMAGES[:, i].mean((1, 2)))
    assert not rewards[0].grad_enabled


def test_local_rewards_take_turns():
    """Their forward passes would only get in each other's way."""
    busy = threading.Lock()

    class Alone(Slow):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            assert busy.acquire(blocking=False)
            time.sleep(self.seconds)
            busy.release()
            return torch.zeros(len(images))

    names = ("a", "b")
    scored = score_all([CheckedReward(n, Alone(n, 0.01)) for n in names], IMAGES, PROMPTS)
    assert list(scored) == ["a", "b"]


def test_each_has_its_own_seconds():
    rewards = [
        CheckedReward("far", Slow("far", 0.3), elsewhere=True),
        CheckedReward("here", Slow("here", 0.1)),
    ]
    start = time.perf_counter()
    scored = score_all(rewards, IMAGES, PROMPTS)
    wall = time.perf_counter() - start
    assert 0.3 <= scored["far"].seconds <= wall
    assert 0.1 <= scored["here"].seconds < 0.3
    assert scored["far"].seconds + scored["here"].seconds > wall
    cpu = score_all(rewards, IMAGES, PROMPTS, cpu_time=True)
    assert cpu["far"].seconds < 0.1


@pytest.mark.parametrize("failing_is_elsewhere", [True, False])
def test_a_failure_anywhere_is_raised(failing_is_elsewhere):
    class Failing(Slow):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            raise RewardError("no server")

    rewards = [
        CheckedReward("slow", Slow("slow", 0.05), elsewhere=not failing_is_elsewhere),
        CheckedReward("bad", Failing("bad", 0), elsewhere=failing_is_elsewhere),
    ]
    with pytest.raises(RewardError, match="no server"):
        score_all(rewards, IMAGES, PROMPTS)


@pytest.mark.parametrize("failing_is_elsewhere", [True, False])
def test_a_failure_does_not_wait_for_the_others(failing_is_elsewhere):
    asked, release = threading.Event(), threading.Event()

    class Waiting(Slow):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            asked.set()
            release.wait(TIMEOUT)
            return torch.zeros(len(images))

    class Failing(Slow):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            asked.wait(TIMEOUT)
            raise RewardError("out of memory")

    rewards = [
        CheckedReward("waiting", Waiting("waiting", 0), elsewhere=True),
        CheckedReward("bad", Failing("bad", 0), elsewhere=failing_is_elsewhere),
    ]
    start = time.perf_counter()
    with pytest.raises(RewardError, match="out of memory"):
        score_all(rewards, IMAGES, PROMPTS)
    assert time.perf_counter() - start < TIMEOUT / 2
    release.set()


def test_a_score_from_elsewhere_is_checked_too():
    class Nan(Slow):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.full((len(images),), torch.nan)

    with pytest.raises(RewardError, match="is not finite for 6 of 6"):
        score_all([CheckedReward("far", Nan("far", 0), elsewhere=True)], IMAGES, PROMPTS)


def no_thread_is_left() -> bool:
    """Of a reward; one that is just ending gets a moment."""
    for thread in threading.enumerate():
        if thread.name.startswith("reward "):
            thread.join(TIMEOUT)
    return not any(thread.name.startswith("reward ") for thread in threading.enumerate())


def test_images_in_parts_are_scored_as_they_come_elsewhere_and_together_here():
    class Counting(Slow):
        def __init__(self, name: str):
            super().__init__(name, 0)
            self.batches: list[int] = []
            self.asked = threading.Event()

        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            self.batches.append(len(images))
            self.asked.set()
            return images.mean((1, 2, 3)) + torch.tensor([float(ord(p)) for p in prompts])

    far, here = Counting("far"), Counting("here")
    whole = score_all([CheckedReward("here", here)], IMAGES, PROMPTS)["here"].scores
    here.batches.clear()
    rewards = [CheckedReward("far", far, elsewhere=True), CheckedReward("here", here)]
    with Scoring(rewards) as scoring:
        scoring.add(IMAGES[:2], PROMPTS[:2])
        assert far.asked.wait(TIMEOUT)
        assert here.batches == []
        scoring.add(IMAGES[2:], PROMPTS[2:])
        scored = scoring.finish()
    assert far.batches == [2, 4]
    assert here.batches == [6]
    assert list(scored) == ["far", "here"]
    assert all(torch.equal(one.scores, whole) for one in scored.values())
    assert no_thread_is_left()


def test_seconds_are_those_of_scoring_and_what_was_waited_for_is_said_apart():
    rewards = [
        CheckedReward("far", Slow("far", 0.15), elsewhere=True),
        CheckedReward("here", Slow("here", 0.05)),
    ]
    with Scoring(rewards) as scoring:
        scoring.add(IMAGES[:3], PROMPTS[:3])
        time.sleep(0.3)  # sampling
        scoring.add(IMAGES[3:], PROMPTS[3:])
        scored = scoring.finish()
    assert 0.3 <= scored["far"].seconds < 0.45  # twice, without the time between
    assert 0.05 <= scored["here"].seconds < 0.15
    assert 0 < scoring.waited <= 0.15


def test_nothing_is_waited_for_where_all_rewards_are_local():
    with Scoring([CheckedReward("here", Slow("here", 0.05))]) as scoring:
        scoring.add(IMAGES, PROMPTS)
        scoring.finish()
    assert scoring.waited < 0.02
    assert no_thread_is_left()


def test_when_sampling_fails_the_threads_end_and_nothing_more_is_asked():
    asked, release = threading.Event(), threading.Event()
    batches: list[int] = []

    class Waiting(Slow):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            batches.append(len(images))
            asked.set()
            release.wait(TIMEOUT)
            return torch.zeros(len(images))

    def sample() -> None:
        with Scoring([CheckedReward("far", Waiting("far", 0), elsewhere=True)]) as scoring:
            for part in IMAGES.split(2):
                scoring.add(part, PROMPTS[:2])
            asked.wait(TIMEOUT)
            raise RuntimeError("the network is broken")

    start = time.perf_counter()
    with pytest.raises(RuntimeError, match="the network is broken"):
        sample()
    assert time.perf_counter() - start < TIMEOUT / 2  # the request was not waited for
    release.set()
    assert no_thread_is_left()
    assert batches == [2]
