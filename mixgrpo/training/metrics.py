"""What is measured in every iteration, defined once; rows of metrics.jsonl; clocks."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from mixgrpo.errors import UserError
from mixgrpo.files import write_text

METRICS = {
    "iteration": "0-based index of the rollout + optimise cycle",
    "window_start": "first SDE step of this iteration",
    "window_size": "number of SDE steps of this iteration; 0 for Flow-DPO, which samples by the ODE",
    "reward/{name}": "mean raw score of the iteration's images, per reward trained on",
    "reward_group_std/{name}": "standard deviation inside a group (n - 1), mean over groups",
    "advantage_abs": "mean |A| after combination and clipping",
    "loss": "mean clipped loss (Eq. 9), plus kl_weight times kl, over the iteration's updates; Flow-DPO's own",
    "ratio_mean": "mean probability ratio over pairs and updates",
    "ratio_deviation": "largest |ratio - 1| of the iteration",
    "clip_fraction": "share of (image, step) pairs whose ratio left the clip range",
    "kl": "closed-form KL to the base model, mean over pairs; 0 when kl_weight is 0",
    "dpo_margin": "Flow-DPO: how much better than the reference the winner is fitted than the loser, mean",
    "dpo_accuracy": "Flow-DPO: share of compared pairs with a positive margin",
    "grad_norm": "gradient norm before clipping, mean over updates",
    "learning_rate": "of the last update",
    "rollout_nfe": "denoising steps that each image was sampled in: evaluations as the paper counts them",
    "update_nfe": "denoising steps (Flow-DPO: noise levels) that each trained image enters the loss with, mean",
    "rollout_evaluations": "network evaluations per image in the rollout, sharing included",
    "update_evaluations": "network evaluations per image in the updates, sharing included",
    "seconds": "wall time of the iteration; this and its parts: of the slowest process",
    "rollout_seconds": "of which sampling and decoding",
    "reward_seconds": "of which scoring after the last group was sampled, all rewards",
    "reward_wait_seconds": "of these, waiting for rewards that run elsewhere, with nothing else left to do",
    "reward_seconds/{name}": "scoring by one reward; those that run elsewhere overlap with sampling and each other",
    "update_seconds": "of which forward, backward and optimizer",
}


class MetricsFile:
    """One JSON object per line and iteration, appended as training goes; a resumed run drops what it repeats."""

    def __init__(self, path: Path, *, completed: int) -> None:
        """Keep the rows of iterations before `completed`; UserError when some of them are missing."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [
            line
            for line in map(_valid, lines)
            if line and json.loads(line)["iteration"] < completed
        ]
        if len(kept) != completed:
            raise UserError(
                f"{path} holds {len(kept)} rows but its checkpoint has {completed} iterations. "
                f"Delete {path.parent} to start this run over."
            )
        write_text(path, "".join(f"{line}\n" for line in kept))

    def append(self, row: Mapping[str, float]) -> None:
        """Add one iteration's row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _valid(line: str) -> str | None:
    try:
        json.loads(line)
    except json.JSONDecodeError:  # the last line of a killed run
        return None
    return line


class Stopwatch:
    """Seconds since the last lap: wall time with the device's work done, or this process's CPU time."""

    def __init__(self, device: torch.device, *, cpu_time: bool = False) -> None:
        self.device = device
        self.clock = time.process_time if cpu_time else time.perf_counter
        self.last = self.clock()

    def lap(self) -> float:
        """Seconds since construction or the last lap."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = self.clock()
        elapsed, self.last = now - self.last, now
        return elapsed
