"""Scoring the images of an iteration by every reward: those that run elsewhere from the first images on."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType

import torch
from torch import Tensor

from mixgrpo.rewards import CheckedReward
from mixgrpo.training.metrics import Stopwatch


@dataclass(frozen=True)
class Scored:
    """What one reward said, and how long it took."""

    scores: Tensor
    """(B,) raw, fp32, on the CPU."""
    seconds: float


@dataclass(frozen=True)
class Images:
    """Some of an iteration's images (N, 3, H, W) in [0, 1], and their N prompts."""

    images: Tensor
    prompts: Sequence[str]


class Scoring:
    """The scores of one iteration; images are added as they are finished.

    Rewards that run elsewhere are asked at once, in a thread each, while more images are sampled. Local ones would be
    in the way of sampling: they score all images in the end, one after another.
    cpu_time: seconds are this process's CPU time (elsewhere: the thread's), not wall time.
    """

    def __init__(self, rewards: Sequence[CheckedReward], *, cpu_time: bool = False) -> None:
        self.rewards, self.cpu_time = rewards, cpu_time
        self.added: list[Images] = []
        self.asked = {r.name: Asked(r, cpu_time=cpu_time) for r in rewards if r.elsewhere}
        self.waited = 0.0
        """Seconds in which there was nothing left to do but wait for rewards elsewhere."""

    def add(self, images: Tensor, prompts: Sequence[str]) -> None:
        """Images (N, 3, H, W) in [0, 1] and N prompts, after those added before."""
        part = Images(images.detach(), prompts)
        self.added.append(part)
        for asked in self.asked.values():
            asked.queue.put(part)

    def finish(self) -> dict[str, Scored]:
        """What each reward says of all images, in the order of `rewards`.

        RewardError of the first that fails; the others are not waited for.
        """
        for asked in self.asked.values():
            asked.queue.put(None)
        images = torch.cat([part.images for part in self.added])
        prompts = [prompt for part in self.added for prompt in part.prompts]
        watch = Stopwatch(images.device, cpu_time=self.cpu_time)
        found: dict[str, Scored] = {}
        for reward in self.rewards:
            if not reward.elsewhere:
                scores = reward.score(images, prompts)
                found[reward.name] = Scored(scores, watch.lap())
        futures = {name: asked.future for name, asked in self.asked.items()}
        for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
            future.result()
        self.waited = watch.lap()
        found |= {name: future.result() for name, future in futures.items()}
        return {reward.name: found[reward.name] for reward in self.rewards}

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for asked in self.asked.values():
            asked.stop()


class Asked:
    """A reward that runs elsewhere, and the thread that waits for its answers, images after images."""

    def __init__(self, reward: CheckedReward, *, cpu_time: bool) -> None:
        self.reward = reward
        self.clock = time.thread_time if cpu_time else time.perf_counter
        self.queue: SimpleQueue[Images | None] = SimpleQueue()
        """What it is yet to score; None is the end."""
        self.future: Future[Scored] = Future()
        self.stopped = threading.Event()
        # no pool: it would hold up the exit of a failed run until every request has timed out
        threading.Thread(target=self.run, name=f"reward {reward.name}", daemon=True).start()

    def stop(self) -> None:
        """End the thread, at once or after the request that it is in; a failed iteration does not wait for it."""
        self.stopped.set()
        self.queue.put(None)

    @torch.no_grad()  # a thread begins with gradients on
    def run(self) -> None:
        """Score what comes until the end; the seconds are those of scoring alone."""
        scores, seconds = [], 0.0
        try:
            while (part := self.queue.get()) is not None and not self.stopped.is_set():
                start = self.clock()
                scores.append(self.reward.score(part.images, part.prompts))
                seconds += self.clock() - start
            self.future.set_result(Scored(torch.cat(scores), seconds))
        except BaseException as error:
            self.future.set_exception(error)


def score_all(
    rewards: Sequence[CheckedReward],
    images: Tensor,
    prompts: Sequence[str],
    *,
    cpu_time: bool = False,
) -> Mapping[str, Scored]:
    """What each reward says of images that are all there; see `Scoring`."""
    with Scoring(rewards, cpu_time=cpu_time) as scoring:
        scoring.add(images, prompts)
        return scoring.finish()
