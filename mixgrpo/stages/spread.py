"""How far the images of a group part when a single denoising step of the base model is an SDE step.

Every position is measured with the same starts and the same noise, so positions differ by position alone.
"""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mixgrpo.algorithm.dpm import DPMSolver
from mixgrpo.algorithm.transition import sde_transition
from mixgrpo.config import Settings, read_settings
from mixgrpo.devices import own_device
from mixgrpo.files import write_text
from mixgrpo.models import Policy, computing, dtype_of, load_policy
from mixgrpo.prompts import Embeddings, read_prompts
from mixgrpo.records import Conditioning, Prompt
from mixgrpo.training.rollout import Plan, collect, plan_rollout, rollout_noise

NUM_PROMPTS = 8
GROUP_SIZE = 8


def run(*, settings: Path, prompts: Path, embeddings: Path, output: Path) -> None:
    """Measure every position of the schedule of `settings` on the first prompts; write one json."""
    config = read_settings(settings)
    device = own_device()
    rows = read_prompts(prompts)
    every = Embeddings(embeddings, rows)
    rows = rows[:NUM_PROMPTS]
    cond = every.take(torch.arange(len(rows))).to(device)
    policy = load_policy(config.model, device, dtype=dtype_of(config.training.precision))
    policy.network.eval()
    positions = measure(policy, cond, rows, config, device)
    report = {
        "preset": config.preset,
        "model": config.model.name,
        "guidance": config.model.guidance,
        "schedule": config.model.schedule,
        "seed": config.seed,
        "num_prompts": len(rows),
        "group_size": GROUP_SIZE,
        "num_steps": config.sampling.num_steps,
        "shift": config.sampling.shift,
        "noise": config.sampling.noise,
        "eta": config.sampling.eta,
        "positions": positions,
    }
    write_text(output, json.dumps(report, indent=1) + "\n")


def measure(
    policy: Policy,
    cond: Conditioning,
    prompts: list[Prompt],
    settings: Settings,
    device: torch.device,
) -> list[dict[str, Any]]:
    """One row per position: its noise level, the noise it adds, and the spread of the images (mean, error)."""
    noise = [
        rollout_noise(policy.latent_shape, 1, GROUP_SIZE, settings.seed, "spread", prompt.id)
        for prompt in prompts
    ]
    initial = torch.stack([start for start, _ in noise]).to(device)
    sde = torch.stack([step for _, step in noise], 1).to(device)
    result = []
    for step in tqdm(range(settings.sampling.num_steps - 1), unit="position"):
        plan = plan_single(settings, step)
        with computing(device, settings.training.precision):
            rollout = collect(
                policy,
                cond,
                plan,
                initial_noise=initial,
                sde_noise=sde,
                micro_batch=settings.training.micro_batch,
                solver=lambda: DPMSolver(settings.sampling.solver_order),  # the tail is empty
            )
        images = policy.decode(rollout.latents)
        spread_P = group_spread(images.view(len(prompts), GROUP_SIZE, *images.shape[1:])).tolist()
        error = statistics.stdev(spread_P) / math.sqrt(len(prompts)) if len(prompts) > 1 else None
        sigma, sigma_next = plan.sigmas[step], plan.sigmas[step + 1]
        nothing = torch.zeros(1, 1)
        _, std = sde_transition(nothing, nothing, sigma, sigma_next, plan.noise_scales[0])
        result.append(
            {
                "step": step,
                "sigma": sigma.item(),
                "noise_std": std.item(),
                "spread": statistics.fmean(spread_P),
                "standard_error": error,
            }
        )
    return result


def plan_single(settings: Settings, step: int) -> Plan:
    """SDE at `step`, ODE everywhere else."""
    sampling = replace(settings.sampling, sde_steps="window", tail_ratio=None)
    return plan_rollout(sampling, range(step, step + 1), settings.model.schedule)


def group_spread(images: Tensor) -> Tensor:
    """Root mean square distance (P,) of pixels to the mean image of their group; images (P, G, 3, H, W).

    >>> group_spread(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1))
    tensor([0.5000])
    """
    distance = images - images.mean(1, keepdim=True)
    return distance.square().flatten(1).mean(1).sqrt()
