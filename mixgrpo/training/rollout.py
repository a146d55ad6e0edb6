"""Sample one group per prompt: shared prefix | SDE window | ODE or DPM-Solver++ tail (sections 3.1, 3.3).

The images of a group start from one noise and share their window, so until the first SDE step adds its
noise they are one point: it is evaluated once per prompt and repeated only when the images part. This
changes no number. `sharing=False` evaluates every image at every step, for tests and benchmarks.

From there on groups are finished one after another, so that rewards elsewhere can score the first while the next are
sampled. Groups that a batch has in common are finished together: the batches are those of all groups step by step.
"""

import itertools
import math
from collections.abc import Callable
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

Finished = Callable[[range, Tensor], None]
"""Is told of groups that are sampled: positions of their prompts, and their final samples, prompt-major."""


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


def groups_at_a_time(num_prompts: int, group_size: int, micro_batch: int) -> list[range]:
    """The prompts in the fewest parts at a time such that no batch of `micro_batch` images has two parts in it.

    >>> groups_at_a_time(3, group_size=12, micro_batch=3)
    [range(0, 1), range(1, 2), range(2, 3)]
    >>> groups_at_a_time(3, group_size=12, micro_batch=24)
    [range(0, 2), range(2, 3)]
    """
    size = math.lcm(group_size, micro_batch) // group_size
    return [range(i, min(i + size, num_prompts)) for i in range(0, num_prompts, size)]


@torch.no_grad()
def collect(
    policy: Policy,
    cond: Conditioning,
    plan: Plan,
    *,
    initial_noise: Tensor,
    sde_noise: Tensor,
    micro_batch: int,
    solver: Callable[[], DPMSolver],
    finished: Finished | None = None,
    as_trained: bool = False,
) -> Rollout:
    """Sample G images for each of P prompts: what groups share for all at once, then groups one after another.

    initial_noise (P, ...): the start of each group. sde_noise (S, P, G, ...): what each SDE step adds.
    micro_batch: images per network evaluation; the update uses the same, so that the ratio starts at
    exactly 1. solver: makes a DPM-Solver++ for a tail. finished: told of groups as soon as they are there.
    Over 50 lines with its signature: the order of evaluations, which decides every bit, is to be read in one place.
    as_trained: evaluate SDE steps as the update does, ready for gradients that nobody asks for: a compiled network has
    other graphs, with other rounding, where there are none.
    """
    num_prompts, group_size = sde_noise.shape[1:3]
    x, cond_of_x, step = initial_noise, cond, plan.sde_steps.start
    if not plan.sharing:
        x, cond_of_x = x.repeat_interleave(group_size, 0), cond.repeat_interleave(group_size)
        step = 0
    for i in range(step):
        v = velocity_in_parts(policy, x, plan.sigmas[i], cond_of_x, micro_batch)
        x = ode_step(x, v, plan.sigmas[i], plan.sigmas[i + 1])
    with torch.set_grad_enabled(as_trained and step in plan.sde_steps):
        v = velocity_in_parts(policy, x, plan.sigmas[step], cond_of_x, micro_batch).detach()
    if plan.sharing:  # from here on the images of a group differ
        x, v = x.repeat_interleave(group_size, 0), v.repeat_interleave(group_size, 0)
    parts = []
    for prompts in groups_at_a_time(num_prompts, group_size, micro_batch):
        images = slice(prompts.start * group_size, prompts.stop * group_size)
        part = finish_groups(
            policy,
            cond.take(torch.tensor(prompts)),
            plan,
            x[images],
            v[images],
            step=step,
            sde_noise=sde_noise[:, prompts.start : prompts.stop],
            micro_batch=micro_batch,
            solver=solver(),
            as_trained=as_trained,
        )
        if finished is not None:
            finished(prompts, part.latents)
        parts.append(part)
    return Rollout(
        plan=plan,
        trajectory=torch.cat([part.trajectory for part in parts], 1),
        log_prob=torch.cat([part.log_prob for part in parts], 1),
        latents=torch.cat([part.latents for part in parts]),
        cond=cond,
        group_size=group_size,
    )


def finish_groups(
    policy: Policy,
    cond: Conditioning,
    plan: Plan,
    x: Tensor,
    v: Tensor,
    *,
    step: int,
    sde_noise: Tensor,
    micro_batch: int,
    solver: DPMSolver,
    as_trained: bool,
) -> Rollout:
    """Carry groups on to their images from `step`, where samples x (B, ...) have velocity v."""
    group_size = sde_noise.shape[2]
    cond_of_x = cond.repeat_interleave(group_size)
    trajectory, log_probs = [], []
    for i in range(step, len(plan.sigmas) - 1):
        sigma, sigma_next = plan.sigmas[i], plan.sigmas[i + 1]
        if i > step:
            with torch.set_grad_enabled(as_trained and i in plan.sde_steps):
                v = velocity_in_parts(policy, x, sigma, cond_of_x, micro_batch).detach()
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
    found = (policy.velocity(x[part], sigma, cond.take(part)).detach() for part in parts)
    return torch.cat(list(found))
