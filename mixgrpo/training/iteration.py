"""One iteration of any method: sample groups, score them, turn rewards into advantages, optimise."""

from typing import Protocol

from torch import Tensor

from mixgrpo.algorithm.advantage import combine, group_advantages
from mixgrpo.training.dpo import DpoIteration
from mixgrpo.training.grpo_iteration import GrpoIteration
from mixgrpo.training.metrics import Stopwatch
from mixgrpo.training.rollout import Finished
from mixgrpo.training.scoring import Scoring
from mixgrpo.training.trainer import Trainer, rows_of_rank


class MethodIteration(Protocol):
    """What a method does in one iteration; making one samples, and hands over groups as they are finished."""

    @property
    def facts(self) -> dict[str, float]:
        """Metrics of the sampling."""

    def optimise(self, advantages_PG: Tensor) -> dict[str, float]:
        """Change the policy and the optimizer; metrics of the updates."""


def start(trainer: Trainer, rows: list[int], iteration: int, finished: Finished) -> MethodIteration:
    """The iteration of the method that the settings ask for."""
    method = GrpoIteration if trainer.settings.dpo is None else DpoIteration
    return method(trainer, rows, iteration, finished)


def iterate(trainer: Trainer, iteration: int, *, cpu_time: bool = False) -> dict[str, float]:
    """One rollout + optimise cycle; changes the policy and the optimizer, returns a row of METRICS.

    UserError, before the optimizer step it would spoil, on a failed reward, a loss or a gradient that is
    not finite. cpu_time: count seconds of this process instead of wall time.
    """
    watch = Stopwatch(trainer.distributed.device, cpu_time=cpu_time)
    rows = rows_of_rank(trainer, iteration)
    group_size = trainer.settings.training.group_size
    before = trainer.policy.num_evaluations
    with Scoring(trainer.rewards, cpu_time=cpu_time) as scoring:

        def score(prompts: range, latents: Tensor) -> None:
            texts = [trainer.prompts[rows[p]].text for p in prompts for _ in range(group_size)]
            scoring.add(trainer.policy.decode(latents), texts)

        method = start(trainer, rows, iteration, score)
        sampled = trainer.policy.num_evaluations - before
        seconds = {"rollout_seconds": watch.lap()}
        scored = scoring.finish()
        seconds["reward_seconds"] = watch.lap()
    rewards = {name: one.scores.view(len(rows), group_size) for name, one in scored.items()}
    advantages = combine(
        {name: group_advantages(rewards_PG) for name, rewards_PG in rewards.items()},
        trainer.weights,
        trainer.settings.training.advantage_clip,
    )

    stats = method.optimise(advantages)
    updated = trainer.policy.num_evaluations - before - sampled
    seconds["update_seconds"] = watch.lap()
    seconds["seconds"] = sum(seconds.values())
    seconds["reward_wait_seconds"] = scoring.waited
    for name, one in scored.items():
        seconds[f"reward_seconds/{name}"] = one.seconds
    for name, rewards_PG in rewards.items():
        stats[f"reward/{name}"] = rewards_PG.mean().item()
        stats[f"reward_group_std/{name}"] = rewards_PG.std(1).mean().item()
    num_images = len(rows) * group_size
    stats["advantage_abs"] = advantages.abs().mean().item()
    stats["learning_rate"] = trainer.settings.training.learning_rate
    stats["rollout_evaluations"] = sampled / num_images
    stats["update_evaluations"] = updated / num_images
    means = trainer.distributed.combine(
        stats | seconds, share=trainer.share, maxima=("ratio_deviation", *seconds)
    )
    return {"iteration": iteration, **method.facts, **means}
