"""Whole iterations of several runs in turns on one model, so that their times can be compared on a busy machine.

What is finished is kept in a file, one line for each iteration, and is not measured again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from mixgrpo.config import Settings
from mixgrpo.training.iteration import iterate
from mixgrpo.training.trainer import Trainer

Turn = tuple[str, str]
"""Cell, and the path that it takes."""
MATRIX = {"cuda": 8192, "cpu": 1024}
"""Side of the square matrices whose product is the peak."""
PRODUCTS = 20


def on_path(settings: Settings, path: str) -> Settings:
    """The run as it computes on `path`, a key of PATHS."""
    return PATHS[path](settings)


def shared(settings: Settings) -> Settings:
    """What a group has in common is evaluated once; in Flow-DPO it has nothing."""
    if settings.dpo is not None:
        return settings
    return replace(settings, sampling=replace(settings.sampling, sharing=True))


def unshared(settings: Settings) -> Settings:
    """Every image is evaluated at every step, in the same batches."""
    if settings.dpo is not None:
        return settings
    return replace(settings, sampling=replace(settings.sampling, sharing=False))


def one_by_one(settings: Settings) -> Settings:
    """And each alone, in the rollout and in the update, as the code that the authors released does it."""
    return replace(unshared(settings), training=replace(settings.training, micro_batch=1))


PATHS = {"shared": shared, "unshared": unshared, "one_by_one": one_by_one}


@dataclass(frozen=True)
class Samples:
    """What has been measured: a row of METRICS, and `memory_bytes`, for each turn, position and repetition."""

    path: Path
    """JSON lines; a broken last line, of a killed run, is measured again."""
    rows: dict[str, dict[str, float]]

    @staticmethod
    def read(path: Path) -> "Samples":
        """Those at `path`, none where there is no file."""
        rows = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
                rows[row["key"]] = row["metrics"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        return Samples(path, rows)

    def add(self, key: str, metrics: dict[str, float]) -> None:
        """Keep one, on disk at once."""
        self.rows[key] = metrics
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begun = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write(
                ("\n" if begun else "") + json.dumps({"key": key, "metrics": metrics}) + "\n"
            )

    def of(self, turn: Turn, position: int, repetitions: int) -> list[dict[str, float]]:
        """All repetitions of one turn at one position."""
        return [self.rows[key_of(turn, position, number)] for number in range(repetitions)]


def key_of(turn: Turn, position: int, repetition: int) -> str:
    """Of one sample in the file."""
    return f"{'/'.join(turn)}/{position}/{repetition}"


def positions(num_iterations: int, num_positions: int = 4) -> list[int]:
    """Iterations to measure, at the middle of equal shares of the schedule, so that their mean stands for all.

    >>> positions(60)
    [7, 22, 37, 52]
    """
    return [num_iterations * (2 * k + 1) // (2 * num_positions) for k in range(num_positions)]


def measure(
    trainers: Mapping[Turn, Trainer],
    samples: Samples,
    *,
    num_positions: int,
    repetitions: int,
    cpu_time: bool,
) -> None:
    """Fill `samples` with an iteration of every trainer at every position, as often as asked; they take turns.

    The first iteration on each path that has something left to measure is a warm-up.
    """
    left = [
        (turn, position, number)
        for position in range(num_positions)
        for number in range(repetitions)
        for turn in trainers
        if key_of(turn, position, number) not in samples.rows
    ]
    warm: set[str] = set()
    for turn, position, number in tqdm(left, unit="iteration"):
        trainer, path = trainers[turn], turn[1]
        iteration = positions(trainer.settings.training.num_iterations, num_positions)[position]
        if path not in warm:
            iterate(trainer, iteration, cpu_time=cpu_time)
            warm.add(path)
        samples.add(key_of(turn, position, number), timed(trainer, iteration, cpu_time=cpu_time))


def timed(trainer: Trainer, iteration: int, *, cpu_time: bool) -> dict[str, float]:
    """Metrics of one iteration, and on a GPU the most memory that it took."""
    device = trainer.distributed.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    metrics = iterate(trainer, iteration, cpu_time=cpu_time)
    if device.type == "cuda":
        metrics["memory_bytes"] = float(torch.cuda.max_memory_allocated(device))
    return metrics


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product: the fastest of some, on the clock that the rows have."""
    side = MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(PRODUCTS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(clock() - start)
    return 2 * side**3 / min(seconds)
