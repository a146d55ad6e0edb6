"""One iteration of any method: sample groups, score them, turn rewards into advantages, optimise."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from mixgrpo.algorithm.advantage import combine, group_advantages
from mixgrpo.records import Prompt
from mixgrpo.training.dpo import DpoIteration
from mixgrpo.training.grpo_iteration import GrpoIteration
from mixgrpo.training.metrics import Stopwatch
from mixgrpo.training.scoring import score_all
from mixgrpo.training.trainer import Trainer, rows_of_rank


class MethodIteration(Protocol):
    """What a method does in one iteration; making one samples."""

    @property
    def latents(self) -> Tensor:
        """(B, ...) final samples of P groups of G, prompt-major."""

    @property
    def facts(self) -> dict[str, float]:
        """Metrics of the sampling."""

    def optimise(self, advantages_PG: Tensor) -> dict[str, float]:
        """Change the policy and the optimizer; metrics of the updates."""


def start(trainer: Trainer, rows: list[int], iteration: int) -> MethodIteration:
    """The iteration of the method that the settings ask for."""
    method = GrpoIteration if trainer.settings.dpo is None else DpoIteration
    return method(trainer, rows, iteration)


def iterate(trainer: Trainer, iteration: int, *, cpu_time: bool = False) -> dict[str, float]:
    """One rollout + optimise cycle; changes the policy and the optimizer, returns a row of METRICS.

    UserError, before the optimizer step it would spoil, on a failed reward, a loss or a gradient that is
    not finite. cpu_time: count seconds of this process instead of wall time.
    """
    watch = Stopwatch(trainer.distributed.device, cpu_time=cpu_time)
    rows = rows_of_rank(trainer, iteration)
    before = trainer.policy.num_evaluations
    method = start(trainer, rows, iteration)
    sampled = trainer.policy.num_evaluations - before
    images = trainer.policy.decode(method.latents)
    seconds = {"rollout_seconds": watch.lap()}

    prompts = [trainer.prompts[row] for row in rows]
    rewards, of_each = score(trainer, images, prompts, cpu_time=cpu_time)
    seconds |= {"reward_seconds": watch.lap(), **of_each}
    advantages = combine(
        {name: group_advantages(rewards_PG) for name, rewards_PG in rewards.items()},
        trainer.weights,
        trainer.settings.training.advantage_clip,
    )

    stats = method.optimise(advantages)
    updated = trainer.policy.num_evaluations - before - sampled
    seconds["update_seconds"] = watch.lap()
    seconds["seconds"] = sum(value for name, value in seconds.items() if "/" not in name)
    for name, rewards_PG in rewards.items():
        stats[f"reward/{name}"] = rewards_PG.mean().item()
        stats[f"reward_group_std/{name}"] = rewards_PG.std(1).mean().item()
    stats["advantage_abs"] = advantages.abs().mean().item()
    stats["learning_rate"] = trainer.settings.training.learning_rate
    stats["rollout_evaluations"] = sampled / len(images)
    stats["update_evaluations"] = updated / len(images)
    means = trainer.distributed.combine(
        stats | seconds, share=trainer.share, maxima=("ratio_deviation", *seconds)
    )
    return {"iteration": iteration, **method.facts, **means}


def score(
    trainer: Trainer, images: Tensor, prompts: Sequence[Prompt], *, cpu_time: bool
) -> tuple[Mapping[str, Tensor], dict[str, float]]:
    """Raw rewards (P, G) by name, and the seconds each took; several may have run at the same time."""
    group_size = trainer.settings.training.group_size
    texts = [prompt.text for prompt in prompts for _ in range(group_size)]
    scored = score_all(trainer.rewards, images, texts, cpu_time=cpu_time)
    rewards = {name: one.scores.view(len(prompts), group_size) for name, one in scored.items()}
    return rewards, {f"reward_seconds/{name}": one.seconds for name, one in scored.items()}
