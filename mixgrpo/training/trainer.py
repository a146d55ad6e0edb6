"""Everything one run computes with, and the optimizer step that all methods share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.algorithm.window import window_at
from mixgrpo.config import Settings
from mixgrpo.errors import UserError
from mixgrpo.models import Policy, load_policy
from mixgrpo.prompts import read_embeddings, read_prompts
from mixgrpo.records import Conditioning, Prompt
from mixgrpo.rewards import CheckedReward, Reward, load_reward, placement
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.randomness import batch_of_iteration


@dataclass
class Trainer:
    """Everything one run computes with; `load_trainer` builds it."""

    settings: Settings
    distributed: Distributed
    policy: Policy
    base: Policy | None
    """The frozen pretrained model, or Flow-DPO's reference; only loaded when the loss needs it."""
    rewards: Sequence[CheckedReward]
    weights: Mapping[str, float]
    """Of each reward in the advantage, by name."""
    prompts: Sequence[Prompt]
    cond: Conditioning
    """Embeddings of all `prompts`, on the device."""
    optimizer: torch.optim.Optimizer
    parameters: list[torch.nn.Parameter]


def load_trainer(
    settings: Settings,
    distributed: Distributed,
    *,
    prompts: Path,
    embeddings: Path,
    rewards: Sequence[Reward] | None = None,
) -> Trainer:
    """Base model, rewards, prompts and a fresh optimizer, everything checked before the first iteration.

    rewards: your own objects, with equal weights, instead of those that `settings` names.
    """
    rows = read_prompts(prompts)
    cond = read_embeddings(embeddings, rows).to(distributed.device)
    if rewards is None:
        judges = load_rewards(settings, distributed.device)
        weights = {name: reward.weight for name, reward in settings.rewards.items()}
    else:
        judges = [CheckedReward(reward.name, reward) for reward in rewards]
        weights = {reward.name: 1.0 for reward in rewards}
    for judge in judges:
        judge.probe(rows[0].text, settings.model.resolution)
    config = settings.training
    policy = load_policy(settings.model, distributed.device, lora=config.lora)
    policy.network = distributed.prepare(policy.network.train())
    parameters = [p for p in policy.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    return Trainer(
        settings=settings,
        distributed=distributed,
        policy=policy,
        base=load_base(settings, distributed),
        rewards=judges,
        weights=weights,
        prompts=rows,
        cond=cond,
        optimizer=optimizer,
        parameters=parameters,
    )


def load_rewards(settings: Settings, device: torch.device) -> list[CheckedReward]:
    """The rewards that `settings` names, each on `device` or where MIXGRPO_REWARDS places it."""
    places = placement()
    return [
        load_reward(name, reward.path, device, reward.options, places.get(name))
        for name, reward in settings.rewards.items()
    ]


def load_base(settings: Settings, distributed: Distributed) -> Policy | None:
    """The model that the policy is held against, a copy of its own; None when the loss needs none.

    Of the policy's architecture, adapters included: Flow-DPO's online reference takes up its weights.
    """
    if settings.training.kl_weight == 0 and settings.dpo is None:
        return None
    base = load_policy(settings.model, distributed.device, lora=settings.training.lora)
    base.network.requires_grad_(False)
    return base


def window_of(settings: Settings, iteration: int) -> range:
    """The window of `iteration`, on the paper's clock of 300 iterations."""
    clock, num_steps = settings.training.window_clock, settings.sampling.num_steps
    return window_at(settings.window, num_steps, iteration * clock, seed=settings.seed)


def rows_of_rank(trainer: Trainer, iteration: int) -> list[int]:
    """Rows of the prompts whose groups this process samples; the whole batch is the same for any world size."""
    config, ranks = trainer.settings.training, trainer.distributed
    rows = batch_of_iteration(
        len(trainer.prompts),
        config.num_prompts * ranks.world_size,
        iteration=iteration,
        seed=trainer.settings.seed,
    )
    return rows[ranks.rank * config.num_prompts : (ranks.rank + 1) * config.num_prompts]


def optimizer_step(trainer: Trainer, loss: Tensor, *, iteration: int, update: int) -> Tensor:
    """One optimizer step from the accumulated gradients of all processes; returns their norm before clipping.

    UserError, before the step, when the loss or the norm is not finite.
    """
    trainer.distributed.average_gradients(trainer.parameters)
    max_norm = trainer.settings.training.max_grad_norm
    grad_norm = torch.nn.utils.clip_grad_norm_(trainer.parameters, max_norm)
    refuse_to_step(loss, grad_norm, iteration=iteration, update=update)
    trainer.optimizer.step()
    return grad_norm


def refuse_to_step(loss: Tensor, grad_norm: Tensor, *, iteration: int, update: int) -> None:
    """UserError when the optimizer step would spoil the weights."""
    for what, value in (("loss", loss), ("gradient norm", grad_norm)):
        if not torch.isfinite(torch.as_tensor(value)):
            raise UserError(
                f"iteration {iteration}, update {update}: the {what} is {float(value)}; stopped before the optimizer "
                "step, the last checkpoint is sound. Lower training.learning_rate or look at the rewards in "
                "metrics.jsonl before this iteration."
            )
