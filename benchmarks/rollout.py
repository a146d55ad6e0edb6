"""Exact sharing inside a group against the naive path: equal results, fewer evaluations, less time.

    make bench            or            python benchmarks/rollout.py [settings.json]

For MixGRPO, Flash and Flash* at several window positions, sampling and one update with sharing on and
off take turns in this process. Printed: the largest difference of samples and log-probs and the relative
difference of gradients (fp32 round-off is what remains), and off / on in network evaluations and in
time. The default settings are those of preset tiny's MixGRPO cell, which `make reproduce` leaves.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mixgrpo.config import Settings, read_settings
from mixgrpo.errors import UserError
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.grpo import accumulate_gradients, images_of_update, trained_steps
from mixgrpo.training.grpo_iteration import sample
from mixgrpo.training.metrics import Stopwatch
from mixgrpo.training.rollout import plan_rollout
from mixgrpo.training.trainer import Trainer, load_trainer, rows_of_rank

DEFAULT = Path("results/tiny/runs/mixgrpo/seed0/settings.json")
TAIL_RATIOS = {"MixGRPO": None, "Flash": 0.4, "Flash*": 0.2}
STARTS = {"MixGRPO": (0, 4, 11, 20), "Flash": (0, 4, 11, 20), "Flash*": (0,)}
REPETITIONS = 5


@dataclass
class Measured:
    """One rollout and one update of one method at one window position."""

    samples: torch.Tensor
    log_prob: torch.Tensor
    gradient: torch.Tensor
    evaluations: tuple[int, int]
    """In the rollout, in the update; all images."""
    seconds: tuple[float, float]


def measure(trainer: Trainer, tail_ratio: float | None, start: int, *, sharing: bool) -> Measured:
    """Sample the groups of iteration 0 and backpropagate their first update."""
    config = trainer.settings.training
    device = trainer.distributed.device
    window = range(start, start + trainer.settings.window.size)
    sampling = replace(trainer.settings.sampling, tail_ratio=tail_ratio, sharing=sharing)
    plan, rows = plan_rollout(sampling, window), rows_of_rank(trainer, 0)
    watch = Stopwatch(device, cpu_time=device.type == "cpu")
    before = trainer.policy.num_evaluations
    rollout = sample(trainer, plan, rows, 0)
    sampled, rollout_seconds = trainer.policy.num_evaluations - before, watch.lap()

    num_images = len(rollout.latents)
    advantages = torch.randn(num_images, generator=torch.Generator().manual_seed(0)).to(device)
    mask = trained_steps(
        trainer.settings.trained_steps,
        len(plan.sde_steps),
        generators=[torch.Generator()] * num_images,
    )
    images = images_of_update(
        0, num_prompts=len(rows), group_size=config.group_size, num_updates=config.num_updates
    )
    trainer.optimizer.zero_grad()
    watch.lap()
    accumulate_gradients(
        trainer.policy,
        None,
        rollout,
        advantages,
        images,
        mask,
        clip_range=config.clip_range,
        kl_weight=0.0,
        micro_batch=config.micro_batch,
    )
    update_seconds = watch.lap()
    trained = trainer.policy.num_evaluations - before - sampled
    gradient = torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None])
    return Measured(
        rollout.latents,
        rollout.log_prob,
        gradient,
        (sampled, trained),
        (rollout_seconds, update_seconds),
    )


def compare(trainer: Trainer, name: str, start: int) -> str:
    """One printed line: on and off take turns, the fastest of each counts."""
    runs: dict[bool, list[Measured]] = {True: [], False: []}
    for _ in range(REPETITIONS):
        for sharing in runs:
            runs[sharing].append(measure(trainer, TAIL_RATIOS[name], start, sharing=sharing))
    on, off = runs[True][0], runs[False][0]
    seconds = {
        sharing: [min(run.seconds[phase] for run in repeated) for phase in (0, 1)]
        for sharing, repeated in runs.items()
    }
    cells = [
        f"{name:8s} {start:5d}",
        f"{(on.samples - off.samples).abs().max():9.1e}",
        f"{(on.log_prob - off.log_prob).abs().max():9.1e}",
        f"{(on.gradient - off.gradient).norm() / off.gradient.norm():9.1e}",
        *(f"{off.evaluations[phase] / on.evaluations[phase]:11.3f}" for phase in (0, 1)),
        *(f"{seconds[False][phase] / seconds[True][phase]:11.3f}" for phase in (0, 1)),
    ]
    return " ".join(cells)


def main(path: Path) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    settings: Settings = read_settings(path)
    root = path.parents[3]
    stem = f"{settings.dataset}_train"
    trainer = load_trainer(
        settings,
        Distributed(precision=settings.training.precision),
        prompts=root / "prompts" / f"{stem}.tsv",
        embeddings=root / "embeddings" / settings.model.name / f"{stem}.safetensors",
    )
    print(
        f"preset {settings.preset}, {trainer.distributed.device}, {torch.get_num_threads()} thread"
    )
    print("off / on: naive path over exact sharing; differences are between the two")
    print(
        "method   start   samples  log-prob  gradient"
        "  rollout NFE  update NFE rollout time update time"
    )
    for name, starts in STARTS.items():
        for start in starts:
            print(compare(trainer, name, start), flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
    except UserError as error:
        sys.exit(f"benchmarks/rollout.py: error: {error}")
