"""Scoring the images of an iteration by every reward: those that run elsewhere while the local ones do."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass

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


def score_all(
    rewards: Sequence[CheckedReward],
    images: Tensor,
    prompts: Sequence[str],
    *,
    cpu_time: bool = False,
) -> Mapping[str, Scored]:
    """Images (B, 3, H, W) in [0, 1] and B prompts -> what each reward says, in the order of `rewards`.

    Rewards that run elsewhere are asked first, a thread each, and answer while the local ones score one
    after another. RewardError of the first that fails; the others are not waited for.
    cpu_time: seconds are this process's CPU time (elsewhere: the thread's), not wall time.
    """
    images = images.detach()
    asked = {r.name: _ask(r, images, prompts, cpu_time=cpu_time) for r in rewards if r.elsewhere}
    found: dict[str, Scored] = {}
    for reward in rewards:
        if not reward.elsewhere:
            watch = Stopwatch(images.device, cpu_time=cpu_time)
            scores = reward.score(images, prompts)
            found[reward.name] = Scored(scores, watch.lap())
    for future in wait(asked.values(), return_when=FIRST_EXCEPTION).done:
        future.result()
    found |= {name: future.result() for name, future in asked.items()}
    return {reward.name: found[reward.name] for reward in rewards}


def _ask(
    reward: CheckedReward, images: Tensor, prompts: Sequence[str], *, cpu_time: bool
) -> Future[Scored]:
    future: Future[Scored] = Future()
    clock = time.thread_time if cpu_time else time.perf_counter

    @torch.no_grad()  # a thread begins with gradients on
    def run() -> None:
        start = clock()
        try:
            scores = reward.score(images, prompts)
            future.set_result(Scored(scores, clock() - start))
        except BaseException as error:
            future.set_exception(error)

    # no pool: it would hold up the exit of a failed run until every request has timed out
    threading.Thread(target=run, name=f"reward {reward.name}", daemon=True).start()
    return future
