"""Sample one group per prompt: shared prefix | SDE window | ODE or DPM-Solver++ tail (sections 3.1, 3.3).

The images of a group start from one noise and share their window, so until the first SDE step adds its
noise they are one point: it is evaluated once per prompt and repeated only when the images part. This
changes no number. `sharing=False` evaluates every image at every step, for tests and benchmarks.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from mixgrpo.algorithm.dpm import DPMSolver
from mixgrpo.algorithm.schedule import SCHEDULES, flash_sigmas
from mixgrpo.algorithm.transition import (
    NOISES,
    gaussian_log_prob,
    ode_step,
    predict_denoised,
    sde_transition,
)
from mixgrpo.config import SamplingConfig
from mixgrpo.models import Policy
from mixgrpo.records import Conditioning
from mixgrpo.training.randomness import normal


@dataclass(frozen=True)
class Plan:
    """What every denoising step of a rollout does."""

    sigmas: Tensor
    """(N + 1,) noise levels, float64; N network evaluations."""
    sde_steps: range
    """Steps sampled by SDE; all others are deterministic."""
    noise_scales: Tensor
    """(len(sde_steps),) g at each of them, float64."""
    tail: range
    """Steps solved by DPM-Solver++; empty for a plain ODE."""
    sharing: bool


@dataclass(frozen=True)
class Rollout:
    """Everything P groups of G images produced; images are prompt-major, B = P G."""

    plan: Plan
    trajectory: Tensor
    """(S + 1, B, ...) samples before each of the S SDE steps and after the last, fp32, as stored."""
    log_prob: Tensor
    """(S, B) log-probability of each SDE step under the policy that sampled it."""
    latents: Tensor
    """(B, ...) final samples."""
    cond: Conditioning
    """Of the P prompts."""
    group_size: int


def plan_rollout(config: SamplingConfig, window: range, schedule: str = "shifted") -> Plan:
    """The steps of a rollout whose window is `window` (Algorithms 1, 2; baselines have SDE steps outside it).

    schedule: a key of SCHEDULES.
    """
    if config.tail_ratio is None:
        sigmas = SCHEDULES[schedule](config.num_steps, config.shift)
        tail = range(0)
    else:
        sigmas = flash_sigmas(config.num_steps, config.shift, window, config.tail_ratio)
        tail = range(window.stop, len(sigmas) - 1)
    baselines = {"all": range(config.num_steps), "all_but_last": range(config.num_steps - 1)}
    sde_steps = baselines.get(config.sde_steps, window)
    return Plan(
        sigmas=sigmas,
        sde_steps=sde_steps,
        noise_scales=NOISES[config.noise](sigmas[list(sde_steps)], sigmas, config.eta),
        tail=tail,
        sharing=config.sharing,
    )


def rollout_noise(
    shape: tuple[int, ...], num_steps: int, group_size: int, *purpose: object
) -> tuple[Tensor, Tensor]:
    """One prompt's initial noise (...) and its group's SDE noise (num_steps, G, ...)."""
    initial = normal(shape, *purpose, "initial")
    return initial, normal((num_steps, group_size, *shape), *purpose, "sde")


@torch.no_grad()
def collect(
    policy: Policy,
    cond: Conditioning,
    plan: Plan,
    *,
    initial_noise: Tensor,
    sde_noise: Tensor,
    micro_batch: int,
    solver: DPMSolver,
) -> Rollout:
    """Sample G images for each of P prompts.

    initial_noise (P, ...): the start of each group. sde_noise (S, P, G, ...): what each SDE step adds.
    micro_batch: images per network evaluation; the update uses the same, so that the ratio starts at
    exactly 1. solver: a fresh DPM-Solver++ for the tail.
    """
    group_size = sde_noise.shape[2]
    x, cond_of_x = initial_noise, cond
    if not plan.sharing:
        x, cond_of_x = x.repeat_interleave(group_size, 0), cond.repeat_interleave(group_size)
    trajectory, log_probs = [], []
    for i in range(len(plan.sigmas) - 1):
        sigma, sigma_next = plan.sigmas[i], plan.sigmas[i + 1]
        v = velocity_in_parts(policy, x, sigma, cond_of_x, micro_batch)
        if i == plan.sde_steps.start and plan.sharing:  # from here on the images of a group differ
            x, v = x.repeat_interleave(group_size, 0), v.repeat_interleave(group_size, 0)
            cond_of_x = cond.repeat_interleave(group_size)
        if i in plan.sde_steps:
            k = i - plan.sde_steps.start
            mean, std = sde_transition(x, v, sigma, sigma_next, plan.noise_scales[k])
            trajectory.append(x)
            x = mean + std * sde_noise[k].flatten(0, 1)
            log_probs.append(gaussian_log_prob(x, mean, std))
            if k == len(plan.sde_steps) - 1:
                trajectory.append(x)
        elif i in plan.tail:
            x = solver.step(x, predict_denoised(x, v, sigma), sigma, sigma_next)
        else:
            x = ode_step(x, v, sigma, sigma_next)
    return Rollout(
        plan=plan,
        trajectory=torch.stack(trajectory),
        log_prob=torch.stack(log_probs),
        latents=x,
        cond=cond,
        group_size=group_size,
    )


@torch.no_grad()
def sample_ode(
    policy: Policy, cond: Conditioning, sigmas: Tensor, noise: Tensor, *, micro_batch: int
) -> Tensor:
    """Samples (B, ...) of the plain ODE from noise (B, ...)."""
    x = noise
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = ode_step(x, velocity_in_parts(policy, x, sigma, cond, micro_batch), sigma, sigma_next)
    return x


def velocity_in_parts(
    policy: Policy, x: Tensor, sigma: Tensor, cond: Conditioning, micro_batch: int
) -> Tensor:
    """v (B, ...) at samples x, `micro_batch` images at a time."""
    if len(x) <= micro_batch:
        return policy.velocity(x, sigma, cond)
    parts = torch.arange(len(x), device=x.device).split(micro_batch)
    return torch.cat([policy.velocity(x[part], sigma, cond.take(part)) for part in parts])
