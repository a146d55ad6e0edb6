"""What an iteration costs: counted network evaluations and measured seconds of all timed cells of one model.

All rows run in one process and take turns, at the same positions of the schedule, on every path that the plan
asks for; so their ratios can be compared even on a machine that is busy. They share one network: what it costs
does not depend on its weights. On a CPU the clock is this process's CPU time on one thread, on a GPU wall time.

An interrupted run keeps what it has measured.
"""

import hashlib
import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from mixgrpo.algorithm.nfe import mean_rollout_nfe
from mixgrpo.algorithm.window import windows_of_run
from mixgrpo.config import STRICT, Settings, canonical, read_settings
from mixgrpo.errors import UserError
from mixgrpo.files import write_text
from mixgrpo.models import dtype_of, forward_flops
from mixgrpo.provenance import digest, stage_modules
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.side_by_side import (
    PATHS,
    Samples,
    Turn,
    measure,
    on_path,
    peak_flops,
)
from mixgrpo.training.together import load_together
from mixgrpo.training.trainer import Trainer, needs_base

NAMES = {"shared": "sharing_on", "unshared": "sharing_off", "one_by_one": "one_by_one"}
"""What the file calls each path."""
SECONDS = ("seconds", "rollout_seconds", "reward_seconds", "update_seconds")
COUNTS = ("rollout_evaluations", "update_evaluations")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How it is measured: the preset's `overhead`."""

    paths: tuple[str, ...] = ("shared", "unshared")
    """Keys of `training.side_by_side.PATHS`."""
    num_positions: int = 4
    """Iterations, at equal distances in the schedule."""
    repetitions: int = 1
    """Of each; their median counts."""
    compile: bool = False
    """Compile the blocks of the network (torch.compile)."""

    __pydantic_config__ = STRICT


def run(
    *, settings: list[Path], prompts: Path, embeddings: Path, output: Path, plan: Path | None = None
) -> None:
    """Measure every run in `settings`, paths `.../{cell}/seed{seed}/settings.json`; write one json."""
    torch.set_num_threads(1)
    configs = {path.parts[-3]: read_settings(path) for path in settings}
    how = read_plan(plan)
    distributed = Distributed(precision=next(iter(configs.values())).training.precision)
    device = distributed.device
    samples = Samples.read(output.with_suffix("") / f"{key(configs, how, device)}.jsonl")
    if samples.rows:
        sys.stderr.write(f"{samples.path}: {len(samples.rows)} iterations are measured already.\n")
    if how.compile:
        configs = {cell: compiled(config) for cell, config in configs.items()}
    cells = load_together(configs, distributed, prompts=prompts, embeddings=embeddings)
    trainers = on_every_path(cells, how)
    cpu_time = device.type == "cpu"
    peak = peak_flops(device, dtype_of(distributed.precision))
    turns = distinct(trainers)
    measure(
        {turn: trainers[turn] for turn in dict.fromkeys(turns.values())},
        samples,
        num_positions=how.num_positions,
        repetitions=how.repetitions,
        cpu_time=cpu_time,
    )
    report = {
        "clock": "cpu" if cpu_time else "wall",
        "device": device_name(device),
        "peak_flops": peak,
        "precision": distributed.precision,
        "trained": trained(next(iter(configs.values()))),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        **{name: value for name, value in asdict(how).items() if name != "paths"},
        "rows": {
            cell: {
                NAMES[path]: summarise(trainers[cell, path], samples, turns[cell, path], how)
                for path in how.paths
            }
            for cell in configs
        },
    }
    write_text(output, json.dumps(report, indent=1) + "\n")
    samples.path.unlink(missing_ok=True)  # asked again, it measures again


def read_plan(path: Path | None) -> Plan:
    """The plan at `path`; shared and unshared, without one."""
    plan = Plan() if path is None else TypeAdapter(Plan).validate_json(path.read_text())
    if unknown := set(plan.paths) - set(PATHS):
        raise UserError(
            f"{path}: paths {sorted(unknown)} are unknown. There are: {', '.join(PATHS)}."
        )
    return plan


def compiled(config: Settings) -> Settings:
    """The same run with compiled blocks; in one process there is nothing to shard."""
    alone = replace(config.training, sharding="none", gradient_reduction="update", compile=True)
    return replace(config, training=alone)


def key(configs: Mapping[str, Settings], plan: Plan, device: torch.device) -> str:
    """Of all that a measurement depends on: what was kept under another one is not taken up."""
    modules = stage_modules(
        "overhead",
        models={config.model.name for config in configs.values()},
        rewards={name for config in configs.values() for name in config.rewards},
    )
    parts = [device_name(device), digest(*modules), json.dumps(asdict(plan), sort_keys=True)]
    parts += [f"{cell} {canonical(config)}" for cell, config in sorted(configs.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def on_every_path(trainers: Mapping[str, Trainer], plan: Plan) -> dict[Turn, Trainer]:
    """Each cell's trainer on each path of the plan."""
    return {
        (cell, path): replace(trainer, settings=on_path(trainer.settings, path))
        for cell, trainer in trainers.items()
        for path in plan.paths
    }


def distinct(trainers: Mapping[Turn, Trainer]) -> dict[Turn, Turn]:
    """For each turn the first of the same cell with equal settings: where one image fits, paths are the same."""
    first: dict[str, Turn] = {}
    return {
        turn: first.setdefault(f"{turn[0]} {canonical(trainer.settings)}", turn)
        for turn, trainer in trainers.items()
    }


def summarise(trainer: Trainer, samples: Samples, turn: Turn, plan: Plan) -> dict[str, Any]:
    """One row on one path: counts by the paper's accounting, counts that were made, seconds, operations.

    Seconds are the median over repetitions, mean over positions; counts are the mean over positions.
    """
    config = trainer.settings
    found = [samples.of(turn, k, plan.repetitions) for k in range(plan.num_positions)]
    mean = {
        name: statistics.fmean(median(repeated, name) for repeated in found)
        for name in (*SECONDS, *COUNTS)
    }
    images = config.training.num_prompts * config.training.group_size
    forward, passes = flops_of_branch(trainer) * branches(trainer), update_passes(trainer)
    memory = [row["memory_bytes"] for rows in found for row in rows if "memory_bytes" in row]
    return {
        **paper_nfe(config),
        "counted_rollout_evaluations": mean["rollout_evaluations"],
        "counted_update_evaluations": mean["update_evaluations"],
        "iteration_seconds": mean["seconds"],
        "rollout_seconds": mean["rollout_seconds"],
        "reward_seconds": mean["reward_seconds"],
        "update_seconds": mean["update_seconds"],
        "image_seconds": mean["rollout_seconds"] / images,
        "micro_batch": config.training.micro_batch,
        "gradient_checkpointing": config.training.gradient_checkpointing,
        "update_passes": passes,
        "rollout_flops": mean["rollout_evaluations"] * images * forward,
        "update_flops": mean["update_evaluations"] * images * forward * passes,
        "memory_bytes": max(memory, default=None),
    }


def median(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Of one metric."""
    return statistics.median(row[name] for row in rows)


def flops_of_branch(trainer: Trainer) -> float:
    """Of one image in one forward pass of the network."""
    network = trainer.distributed.unwrap(trainer.policy.network)
    config: Mapping[str, Any] = network.config  # type: ignore[assignment]
    config = {**config, "_class_name": type(network).__name__}
    cond = trainer.cond.take(torch.zeros(1, dtype=torch.long))
    shape = trainer.policy.latent_shape
    tokens = shape[0] if len(shape) == 2 else shape[1] * shape[2] // config["patch_size"] ** 2
    text_tokens = cond.tensors["prompt_embeds"].shape[1]
    return forward_flops(config, image_tokens=tokens, text_tokens=text_tokens)


def branches(trainer: Trainer) -> int:
    """Forward passes of one evaluation in the rollout: two where the guidance has an empty prompt."""
    return 2 if trainer.cond.shared and trainer.settings.model.guidance != 1 else 1


def update_passes(trainer: Trainer) -> float:
    """What a trained evaluation costs, in evaluations of the rollout.

    Its own, and twice that for its backward pass, of which adapters spare the half that goes to the weights;
    once more with checkpointing, and once for a frozen network. Flow-DPO trains one branch of the guidance.
    """
    config = trainer.settings
    training = config.training
    passes = (2 if training.lora else 3) + training.gradient_checkpointing + needs_base(config)
    return passes / branches(trainer) if config.dpo is not None else passes


def trained(config: Settings) -> str:
    """What the update trains, in words."""
    lora = config.training.lora
    return "all weights" if lora is None else f"LoRA of rank {lora.rank}"


def paper_nfe(config: Settings) -> dict[str, float]:
    """NFE as the paper counts it, per image and without sharing: rollout over the schedule, steps trained."""
    sampling, training = config.sampling, config.training
    if config.dpo is not None:
        return {"rollout_nfe": sampling.num_steps, "update_nfe": config.dpo.num_levels}
    windows = windows_of_run(
        config.window,
        sampling.num_steps,
        training.num_iterations,
        clock=training.window_clock,
        seed=config.seed,
    )
    return {
        "rollout_nfe": mean_rollout_nfe(sampling.num_steps, windows, sampling.tail_ratio),
        "update_nfe": config.trained_steps.count or config.num_sde_steps,
    }


def device_name(device: torch.device) -> str:
    """What computed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, one thread"
