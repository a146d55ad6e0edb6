"""What an iteration costs: counted network evaluations and measured seconds of every row of one table.

All rows run in one process and take turns, at the same positions of the schedule, with sharing on and
off; so their ratios can be compared even on a machine that is busy. On a CPU the clock is this process's
CPU time on one thread, on a GPU wall time.
"""

import json
import platform
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mixgrpo.algorithm.nfe import mean_rollout_nfe
from mixgrpo.algorithm.window import windows_of_run
from mixgrpo.config import Settings, read_settings
from mixgrpo.files import write_text
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.iteration import iterate
from mixgrpo.training.trainer import Trainer, load_trainer

NUM_POSITIONS = 4
REPETITIONS = 1
SECONDS = ("seconds", "rollout_seconds", "reward_seconds", "update_seconds")
COUNTS = ("rollout_evaluations", "update_evaluations")


def run(*, settings: list[Path], prompts: Path, embeddings: Path, output: Path) -> None:
    """Measure every run in `settings`, paths `.../{cell}/seed{seed}/settings.json`; write one json."""
    torch.set_num_threads(1)
    configs = {path.parts[-3]: read_settings(path) for path in settings}
    precision = next(iter(configs.values())).training.precision
    distributed = Distributed(precision=precision)
    cpu_time = distributed.device.type == "cpu"
    trainers = {
        (cell, sharing): load_trainer(
            replace(config, sampling=replace(config.sampling, sharing=sharing)),
            distributed,
            prompts=prompts,
            embeddings=embeddings,
        )
        for cell, config in configs.items()
        for sharing in (True, False)
    }
    samples = measure(trainers, cpu_time=cpu_time)
    rows = {
        cell: {
            "sharing_on": summarise(config, samples[cell, True]),
            "sharing_off": summarise(config, samples[cell, False]),
        }
        for cell, config in configs.items()
    }
    report = {
        "clock": "cpu" if cpu_time else "wall",
        "device": device_name(distributed.device),
        "num_positions": NUM_POSITIONS,
        "repetitions": REPETITIONS,
        "rows": rows,
    }
    write_text(output, json.dumps(report, indent=1) + "\n")


def positions(num_iterations: int) -> list[int]:
    """Iterations to measure, at the middle of equal shares of the schedule, so that their mean stands for all.

    >>> positions(60)
    [7, 22, 37, 52]
    """
    return [num_iterations * (2 * k + 1) // (2 * NUM_POSITIONS) for k in range(NUM_POSITIONS)]


def measure(
    trainers: dict[tuple[str, bool], Trainer], *, cpu_time: bool
) -> dict[tuple[str, bool], list[list[dict[str, float]]]]:
    """Metrics of `iterate` for every trainer, by position and repetition; the trainers take turns."""
    samples: dict[tuple[str, bool], list[list[dict[str, float]]]] = {key: [] for key in trainers}
    for trainer in tqdm(trainers.values(), desc="warm-up", unit="iteration"):
        iterate(trainer, 0, cpu_time=cpu_time)
    for k in tqdm(range(NUM_POSITIONS), unit="position"):
        for key in trainers:
            samples[key].append([])
        for _ in range(REPETITIONS):
            for key, trainer in trainers.items():
                iteration = positions(trainer.settings.training.num_iterations)[k]
                samples[key][k].append(iterate(trainer, iteration, cpu_time=cpu_time))
    return samples


def summarise(config: Settings, samples: list[list[dict[str, float]]]) -> dict[str, Any]:
    """One row: counts by the paper's accounting, counts that were made, seconds.

    Seconds are the minimum over repetitions (what the code costs without its neighbours), mean over
    positions; counts are the mean over positions.
    """
    fastest = [
        {name: min(sample[name] for sample in repetitions) for name in (*SECONDS, *COUNTS)}
        for repetitions in samples
    ]
    mean = {name: statistics.fmean(sample[name] for sample in fastest) for name in fastest[0]}
    images = config.training.num_prompts * config.training.group_size
    return {
        **paper_nfe(config),
        "counted_rollout_evaluations": mean["rollout_evaluations"],
        "counted_update_evaluations": mean["update_evaluations"],
        "iteration_seconds": mean["seconds"],
        "rollout_seconds": mean["rollout_seconds"],
        "reward_seconds": mean["reward_seconds"],
        "update_seconds": mean["update_seconds"],
        "image_seconds": mean["rollout_seconds"] / images,
    }


def paper_nfe(config: Settings) -> dict[str, float]:
    """NFE as the paper counts it, per image and without sharing: rollout over the schedule, steps trained."""
    sampling, training = config.sampling, config.training
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
