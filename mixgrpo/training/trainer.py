"""Everything one run computes with, and the optimizer step that all methods share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.algorithm.window import window_at
from mixgrpo.config import Settings, TrainingConfig
from mixgrpo.errors import UserError
from mixgrpo.models import (
    Policy,
    dtype_of,
    load_outline,
    load_policy,
    move_all_but_network,
)
from mixgrpo.prompts import Embeddings, read_prompts
from mixgrpo.records import Prompt
from mixgrpo.rewards import CheckedReward, Reward, load_reward, placement
from mixgrpo.training.distributed import Distributed, Part
from mixgrpo.training.memory import (
    Load,
    available_bytes,
    estimate,
    refuse_what_cannot_fit,
    size_of,
)
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
    cond: Embeddings
    """Of all `prompts`, on the disk."""
    optimizer: torch.optim.Optimizer
    parameters: list[torch.nn.Parameter]

    @property
    def dealt(self) -> range:
        """Positions, in an iteration's batch of prompts, of those whose groups this process samples."""
        config = self.settings.training
        return self.distributed.deal(config.num_prompts, sharded=config.sharding == "fsdp")

    @property
    def share(self) -> float:
        """Of all prompts of an iteration, those of this process."""
        return len(self.dealt) / self.settings.training.num_prompts

    @property
    def loss_weight(self) -> float:
        """What a mean over this process's prompts is multiplied by before gradients are averaged over processes."""
        return self.share * self.distributed.world_size

    def passes(self, parts: Sequence[Part]) -> Iterator[tuple[Part, bool]]:
        """The forward and backward passes of an update, and whether each counts; see `Distributed.passes`."""
        reduce_each = self.settings.training.gradient_reduction == "backward"
        return self.distributed.passes(self.policy.network, parts, reduce_each=reduce_each)


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
    config = settings.training
    distributed.deal(config.num_prompts, sharded=config.sharding == "fsdp")
    rows = read_prompts(prompts)
    free = available_bytes(distributed.device, distributed.processes_here)
    cond = Embeddings(embeddings, rows)
    if rewards is None:
        judges = load_rewards(settings, distributed.device)
        weights = {name: reward.weight for name, reward in settings.rewards.items()}
    else:
        judges = [CheckedReward(reward.name, reward) for reward in rewards]
        weights = {reward.name: 1.0 for reward in rewards}
    for judge in judges:
        judge.probe(rows[0].text, settings.model.resolution)
    refuse_too_large(settings, distributed, cond, free, judges)
    policy = load_prepared(settings, distributed, trained=True)
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


def frozen_dtype(config: TrainingConfig) -> torch.dtype:
    """Of weights that adapters leave alone: they are used in the precision of the forward pass only."""
    return torch.float32 if config.lora is None else dtype_of(config.precision)


def enable_gradient_checkpointing(network: torch.nn.Module) -> None:
    """Of a diffusers network: its blocks' activations are computed again when the backward pass needs them."""
    enable: Callable[[], None] = network.enable_gradient_checkpointing  # type: ignore[assignment]
    enable()


COMPILER = "inductor"
"""Backend of torch.compile."""


def compile_blocks(network: torch.nn.Module) -> None:
    """Compile a diffusers transformer block by block, in place.

    Blocks that are alike share what was compiled, so that 57 of them take as long as two. (Diffusers' own
    `compile_repeated_blocks` refuses SD3.) A graph for each shape: the same batch meets the same graph every time.
    """
    for blocks in network.children():
        for block in blocks if isinstance(blocks, torch.nn.ModuleList) else ():
            block.compile(backend=COMPILER, dynamic=False)


def refuse_too_large(
    settings: Settings,
    distributed: Distributed,
    embeddings: Embeddings,
    free: int,
    rewards: Sequence[CheckedReward],
) -> None:
    """UserError with advice when the run cannot fit in memory. free: bytes before the rewards were loaded."""
    config, processes = settings.training, distributed.processes_here
    outline = load_outline(settings.model, config.lora)
    of_one = embeddings.take(torch.zeros(1, dtype=torch.long))
    branches = 2 if of_one.shared and settings.model.guidance != 1 else 1
    text = of_one.tensors["prompt_embeds"].shape[1]
    load = Load(
        tokens=branches * (outline.image_tokens + text),
        pixels=len(distributed.deal(config.num_prompts, sharded=False))
        * config.group_size
        * settings.model.resolution**2,
        reward_bytes=max(0, free - available_bytes(distributed.device, processes)),
        num_bases=int(needs_base(settings)),
        visiting_bytes=max((reward.visiting_bytes for reward in rewards), default=0),
    )
    found = estimate(size_of(outline.network), load, config, world_size=distributed.world_size)
    refuse_what_cannot_fit(found, free, config, world_size=distributed.world_size)


def needs_base(settings: Settings) -> bool:
    """Whether the loss holds the policy against another model."""
    return settings.training.kl_weight != 0 or settings.dpo is not None


def load_prepared(settings: Settings, distributed: Distributed, *, trained: bool) -> Policy:
    """The base model, ready to be trained, or frozen.

    Sharded, it is never whole on the device, and only the main process reads its weights: it sends the others theirs.
    """
    config, device = settings.training, distributed.device
    sharded = config.sharding == "fsdp"
    policy = load_policy(
        settings.model,
        torch.device("cpu") if sharded else device,
        lora=config.lora,
        dtype=frozen_dtype(config),
        weights=not sharded or distributed.is_main,
    )
    network = policy.network.train() if trained else policy.network.requires_grad_(False)
    if trained and config.gradient_checkpointing:
        enable_gradient_checkpointing(network)
    if config.compile:
        compile_blocks(network)
    policy.network = distributed.prepare(network, sharded=sharded)
    move_all_but_network(policy, device)
    return policy


def load_base(settings: Settings, distributed: Distributed) -> Policy | None:
    """The model that the policy is held against, a copy of its own; None when the loss needs none.

    Of the policy's architecture, adapters included: Flow-DPO's online reference takes up its weights.
    """
    if not needs_base(settings):
        return None
    return load_prepared(settings, distributed, trained=False)


def window_of(settings: Settings, iteration: int) -> range:
    """The window of `iteration`, on the paper's clock of 300 iterations."""
    clock, num_steps = settings.training.window_clock, settings.sampling.num_steps
    return window_at(settings.window, num_steps, iteration * clock, seed=settings.seed)


def rows_of_rank(trainer: Trainer, iteration: int) -> list[int]:
    """Rows of the prompts whose groups this process samples; the whole batch is the same for any world size."""
    rows = batch_of_iteration(
        len(trainer.prompts),
        trainer.settings.training.num_prompts,
        iteration=iteration,
        seed=trainer.settings.seed,
    )
    return [rows[position] for position in trainer.dealt]


def optimizer_step(trainer: Trainer, loss: Tensor, *, iteration: int, update: int) -> Tensor:
    """One optimizer step from the accumulated gradients of all processes; returns their norm before clipping.

    UserError, before the step, when the loss or the norm is not finite.
    """
    trainer.distributed.average_gradients(trainer.parameters)
    max_norm = trainer.settings.training.max_grad_norm
    grad_norm = trainer.distributed.clip_gradients(trainer.parameters, max_norm)
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
