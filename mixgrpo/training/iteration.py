"""One iteration, as Algorithms 1 and 2 of the paper: rollout, rewards, advantages, updates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.algorithm.advantage import combine, group_advantages
from mixgrpo.algorithm.dpm import DPMSolver
from mixgrpo.algorithm.window import window_at
from mixgrpo.config import Settings
from mixgrpo.errors import UserError
from mixgrpo.models import Policy, load_policy
from mixgrpo.prompts import read_embeddings, read_prompts
from mixgrpo.records import Conditioning, Prompt
from mixgrpo.rewards import CheckedReward, Reward, load_reward
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.grpo import accumulate_gradients, images_of_update, trained_steps
from mixgrpo.training.metrics import Stopwatch
from mixgrpo.training.randomness import batch_of_iteration, seeded
from mixgrpo.training.rollout import Plan, Rollout, collect, plan_rollout, rollout_noise


@dataclass
class Trainer:
    """Everything one run computes with; `load_trainer` builds it."""

    settings: Settings
    distributed: Distributed
    policy: Policy
    base: Policy | None
    """The frozen pretrained model; only loaded when the loss has a KL term."""
    rewards: Sequence[Reward]
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
        named = settings.rewards
        judges = [load_reward(n, r.path, distributed.device) for n, r in named.items()]
        weights = {name: reward.weight for name, reward in named.items()}
    else:
        judges = [CheckedReward(reward.name, reward) for reward in rewards]
        weights = {reward.name: 1.0 for reward in rewards}
    policy = load_policy(settings.model, distributed.device)
    policy.network = distributed.prepare(policy.network.train())
    parameters = [p for p in policy.network.parameters() if p.requires_grad]
    config = settings.training
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    return Trainer(
        settings=settings,
        distributed=distributed,
        policy=policy,
        base=load_policy(settings.model, distributed.device) if config.kl_weight > 0 else None,
        rewards=judges,
        weights=weights,
        prompts=rows,
        cond=cond,
        optimizer=optimizer,
        parameters=parameters,
    )


def window_of(settings: Settings, iteration: int) -> range:
    """The window of `iteration`, on the paper's clock of 300 iterations."""
    clock, num_steps = settings.training.window_clock, settings.sampling.num_steps
    return window_at(settings.window, num_steps, iteration * clock, seed=settings.seed)


def iterate(trainer: Trainer, iteration: int, *, cpu_time: bool = False) -> dict[str, float]:
    """One rollout + optimise cycle; changes the policy and the optimizer, returns a row of METRICS.

    UserError, before the optimizer step it would spoil, on a failed reward, a loss or a gradient that is
    not finite. cpu_time: count seconds of this process instead of wall time.
    """
    watch = Stopwatch(trainer.distributed.device, cpu_time=cpu_time)
    window = window_of(trainer.settings, iteration)
    rows = rows_of_rank(trainer, iteration)
    prompts = [trainer.prompts[row] for row in rows]
    plan = plan_rollout(trainer.settings.sampling, window)

    evaluated = trainer.policy.num_evaluations
    rollout = sample(trainer, plan, rows, iteration)
    evaluated = trainer.policy.num_evaluations - evaluated
    images = trainer.policy.decode(rollout.latents)
    seconds = {"rollout_seconds": watch.lap()}

    rewards, reward_seconds = score(trainer, images, prompts, watch)
    seconds |= reward_seconds
    advantages = combine(
        {name: group_advantages(rewards_PG) for name, rewards_PG in rewards.items()},
        trainer.weights,
        trainer.settings.training.advantage_clip,
    )

    stats = optimise(trainer, rollout, advantages, prompts, iteration)
    seconds["update_seconds"] = watch.lap()
    seconds["seconds"] = sum(value for name, value in seconds.items() if "/" not in name)
    for name, rewards_PG in rewards.items():
        stats[f"reward/{name}"] = rewards_PG.mean().item()
        stats[f"reward_group_std/{name}"] = rewards_PG.std(1).mean().item()
    stats["advantage_abs"] = advantages.abs().mean().item()
    stats["rollout_evaluations"] = evaluated / len(images)
    means = trainer.distributed.mean(stats | seconds)
    position = {"window_start": plan.sde_steps.start, "window_size": len(plan.sde_steps)}
    return {"iteration": iteration, **position, **means}


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


def sample(trainer: Trainer, plan: Plan, rows: list[int], iteration: int) -> Rollout:
    """Rollout of one group for each prompt in `rows`, with noise that depends on seed, iteration and prompt alone."""
    config, device = trainer.settings.training, trainer.distributed.device
    solver = DPMSolver(
        trainer.settings.sampling.solver_order, trainer.settings.sampling.solver_type
    )
    noise = [
        rollout_noise(
            trainer.policy.latent_shape,
            len(plan.sde_steps),
            config.group_size,
            *(trainer.settings.seed, iteration, trainer.prompts[row].id),
        )
        for row in rows
    ]
    return collect(
        trainer.policy,
        trainer.cond.take(torch.tensor(rows, device=device)),
        plan,
        initial_noise=torch.stack([initial for initial, _ in noise]).to(device),
        sde_noise=torch.stack([sde for _, sde in noise], 1).to(device),
        micro_batch=config.micro_batch,
        solver=solver,
    )


def score(
    trainer: Trainer, images: Tensor, prompts: Sequence[Prompt], watch: Stopwatch
) -> tuple[Mapping[str, Tensor], dict[str, float]]:
    """Raw rewards (P, G) by name, and the seconds each took."""
    group_size = trainer.settings.training.group_size
    texts = [prompt.text for prompt in prompts for _ in range(group_size)]
    rewards, seconds = {}, {}
    for reward in trainer.rewards:
        scores = reward.score(images, texts)
        rewards[reward.name] = scores.view(len(prompts), group_size)
        seconds[f"reward_seconds/{reward.name}"] = watch.lap()
    return rewards, {"reward_seconds": sum(seconds.values()), **seconds}


def optimise(
    trainer: Trainer,
    rollout: Rollout,
    advantages_PG: Tensor,
    prompts: Sequence[Prompt],
    iteration: int,
) -> dict[str, float]:
    """`num_updates` optimizer updates, each over its share of every group; means of their metrics."""
    settings, config = trainer.settings, trainer.settings.training
    device = trainer.distributed.device
    sampled = trainer.policy.num_evaluations
    mask = mask_of_iteration(settings, prompts, len(rollout.log_prob), iteration)
    advantages = advantages_PG.flatten().to(device, torch.float32)
    per_update = []
    for index in range(config.num_updates):
        images = images_of_update(
            index,
            num_prompts=len(prompts),
            group_size=config.group_size,
            num_updates=config.num_updates,
        )
        trainer.optimizer.zero_grad(set_to_none=True)
        sums = accumulate_gradients(
            trainer.policy,
            trainer.base,
            rollout,
            advantages,
            images,
            mask,
            clip_range=config.clip_range,
            kl_weight=config.kl_weight,
            micro_batch=config.micro_batch,
        )
        trainer.distributed.average_gradients(trainer.parameters)
        grad_norm = torch.nn.utils.clip_grad_norm_(trainer.parameters, config.max_grad_norm)
        refuse_to_step(sums["loss"], grad_norm, iteration=iteration, update=index)
        trainer.optimizer.step()
        per_update.append({**sums, "grad_norm": grad_norm})
    stats = {
        name: torch.stack([torch.as_tensor(u[name]) for u in per_update]) for name in per_update[0]
    }
    num_images = len(prompts) * config.group_size
    return {
        **{n: (v.max() if n == "ratio_deviation" else v.mean()).item() for n, v in stats.items()},
        "learning_rate": config.learning_rate,
        "update_evaluations": (trainer.policy.num_evaluations - sampled) / num_images,
    }


def mask_of_iteration(
    settings: Settings, prompts: Sequence[Prompt], num_sde_steps: int, iteration: int
) -> Tensor:
    """(B, num_sde_steps) bool: the SDE steps of each image that enter the loss of this iteration."""
    generators = [
        seeded(settings.seed, "trained steps", iteration, prompt.id, image)
        for prompt in prompts
        for image in range(settings.training.group_size)
    ]
    return trained_steps(settings.trained_steps, num_sde_steps, generators=generators)


def refuse_to_step(loss: Tensor, grad_norm: Tensor, *, iteration: int, update: int) -> None:
    """UserError when the optimizer step would spoil the weights."""
    for what, value in (("loss", loss), ("gradient norm", grad_norm)):
        if not torch.isfinite(torch.as_tensor(value)):
            raise UserError(
                f"iteration {iteration}, update {update}: the {what} is {float(value)}; stopped before the optimizer "
                "step, the last checkpoint is sound. Lower training.learning_rate or look at the rewards in "
                "metrics.jsonl before this iteration."
            )
