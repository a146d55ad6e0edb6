"""Trainers of runs that train one network, loaded once, with as many images at a time as fit in memory."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mixgrpo.config import Settings
from mixgrpo.errors import UserError
from mixgrpo.prompts import Embeddings, read_prompts
from mixgrpo.rewards import CheckedReward
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.memory import available_bytes
from mixgrpo.training.trainer import (
    Trainer,
    load_rewards,
    load_trainer,
    needs_base,
    refuse_too_large,
)


def load_together(
    configs: Mapping[str, Settings], distributed: Distributed, *, prompts: Path, embeddings: Path
) -> dict[str, Trainer]:
    """A trainer for every cell. They share network, rewards and optimizer where their settings allow it."""
    alike: dict[str, dict[str, Settings]] = {}
    for cell, config in configs.items():
        kind = f"{config.model} {config.rewards} {config.training.lora} {config.training.precision}"
        alike.setdefault(kind, {})[cell] = config
    trainers: dict[str, Trainer] = {}
    for group in alike.values():
        trainers |= load_alike(group, distributed, prompts=prompts, embeddings=embeddings)
    return {cell: trainers[cell] for cell in configs}


def load_alike(
    configs: Mapping[str, Settings], distributed: Distributed, *, prompts: Path, embeddings: Path
) -> dict[str, Trainer]:
    """Trainers of cells that train one network by the same rewards: loaded once, as much at a time as fits."""
    free = available_bytes(distributed.device, distributed.processes_here)
    some = next(iter(configs.values()))
    judges = load_rewards(some, distributed.device)
    cond = Embeddings(embeddings, read_prompts(prompts))
    fitting = as_they_fit(configs, distributed, cond, free, judges)
    widest = max(fitting.values(), key=needs_base)  # with the frozen network, if any cell has one
    one = load_trainer(
        widest,
        distributed,
        prompts=prompts,
        embeddings=embeddings,
        rewards=[judge.reward for judge in judges],
    )
    weights = {name: reward.weight for name, reward in some.rewards.items()}
    one = replace(one, rewards=judges, weights=weights)
    return {
        cell: replace(one, settings=config, base=one.base if needs_base(config) else None)
        for cell, config in fitting.items()
    }


def as_they_fit(
    configs: Mapping[str, Settings],
    distributed: Distributed,
    cond: Embeddings,
    free: int,
    rewards: Sequence[CheckedReward],
) -> dict[str, Settings]:
    """The cells with as many images at a time as fit; only if one is too many, with checkpointing.

    A word on stderr when that is not what was planned. UserError when nothing fits.
    """
    most = max(config.training.micro_batch for config in configs.values())
    numbers = [most >> halved for halved in range(most.bit_length())]
    refused: UserError | None = None
    for checkpointing, number in itertools.product((False, True), numbers):
        fitting = {
            cell: at_a_time(config, number, checkpointing) for cell, config in configs.items()
        }
        try:
            for config in fitting.values():
                refuse_too_large(config, distributed, cond, free, rewards)
        except UserError as error:
            refused = refused or error
            continue
        if refused is not None:
            how = " and gradient checkpointing" if checkpointing else ""
            sys.stderr.write(f"{refused} Measuring what fits: micro_batch {number}{how}.\n")
        return fitting
    assert refused is not None
    raise UserError(
        f"{refused} Not even one image at a time with gradient checkpointing fits; `make overhead "
        "PRESET=overhead_small` measures a smaller model."
    )


def at_a_time(config: Settings, micro_batch: int, checkpointing: bool) -> Settings:
    """The run with at most `micro_batch` images at a time, and checkpointing if either asks for it."""
    training = replace(
        config.training,
        micro_batch=min(micro_batch, config.training.micro_batch),
        gradient_checkpointing=checkpointing or config.training.gradient_checkpointing,
    )
    return replace(config, training=training)
