"""Hybrid inference (section 10): the first steps by the tuned model, the rest by the base model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixgrpo.algorithm.transition import ode_step
from mixgrpo.models import Policy
from mixgrpo.records import Conditioning


@torch.no_grad()
def sample_hybrid(
    policy: Policy,
    base: Policy,
    cond: Conditioning,
    sigmas: Tensor,
    *,
    noise: Tensor,
    p_mix: Sequence[float],
) -> list[Tensor]:
    """ODE samples (B, ...) for each share p of `p_mix`: round(p T) steps by `policy`, then `base`.

    The tuned model's trajectory is walked once; every p leaves it at its own step. noise: (B, ...).
    """
    num_steps = len(sigmas) - 1
    switches = [round(p * num_steps) for p in p_mix]
    at_switch = {}
    x = noise
    for i in range(max(switches) + 1):
        if i in switches:
            at_switch[i] = x
        if i < max(switches):
            x = ode_step(x, policy.velocity(x, sigmas[i], cond), sigmas[i], sigmas[i + 1])
    finals = {}
    for switch, x in at_switch.items():
        for i in range(switch, num_steps):
            x = ode_step(x, base.velocity(x, sigmas[i], cond), sigmas[i], sigmas[i + 1])
        finals[switch] = x
    return [finals[switch] for switch in switches]
