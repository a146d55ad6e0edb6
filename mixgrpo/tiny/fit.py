"""Training of one small network: seeded, with a progress bar and a check that the loss stays finite."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from mixgrpo.errors import UserError
from mixgrpo.tiny.muon import Muon

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""
FINAL = 0.03
"""Share of the learning rate that is left at the end of the cosine."""


@contextlib.contextmanager
def seeded(seed: int, component: str) -> Iterator[None]:
    """torch's global stream, one thread, set by seed and component; afterwards as it was before."""
    digest = hashlib.sha256(f"{seed} {component}".encode()).digest()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order round otherwise: same bytes need one thread
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            yield
    finally:
        torch.set_num_threads(threads)


def learning_rate_factor(step: int, num_steps: int) -> float:
    """Linear warm-up times a cosine from 1 to FINAL.

    >>> [round(learning_rate_factor(i, 100), 2) for i in (0, 4, 50, 99)]
    [0.2, 1.0, 0.52, 0.03]
    """
    warm_up = min((step + 1) / (WARM_UP * num_steps), 1.0)
    return warm_up * ((1 + FINAL) / 2 + (1 - FINAL) / 2 * math.cos(math.pi * step / num_steps))


def fit(
    module: torch.nn.Module,
    loss_of: Callable[[], Tensor],
    *,
    name: str,
    num_steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    average: float = 0.0,
) -> float:
    """Train `module` in place by Muon; returns the mean loss of the last tenth of the steps.

    `loss_of` draws its own batch. `average`: decay of a mean of the weights, which is then what is kept.
    """
    parameters = list(module.parameters())
    optimizer = Muon(module, weight_decay=weight_decay)
    mean = [p.detach().clone() for p in parameters] if average else []
    losses: list[float] = []
    bar = tqdm(range(num_steps), desc=name, unit="step", mininterval=1.0)
    for step in bar:
        loss = loss_of()
        module.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(learning_rate * learning_rate_factor(step, num_steps))
        if mean:
            decay = min(average, (step + 1) / (step + 10))
            torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - decay)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"{name}: the loss is {losses[-1]} at step {step} of {num_steps}. Lower the learning rate."
            )
        bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
    with torch.no_grad():
        for parameter, value in zip(parameters, mean, strict=False):
            parameter.copy_(value)
    module.eval().requires_grad_(False)
    tail = losses[-max(1, num_steps // 10) :]
    return sum(tail) / len(tail)
