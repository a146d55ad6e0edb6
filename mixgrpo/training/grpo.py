"""One optimizer update of GRPO from a rollout (Eq. 8, 9), and which (image, step) pairs it trains.

The first SDE step is special: there all images of a group are the same point, so the images of one group
that fall in this update share one forward and one backward pass with as many loss terms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixgrpo.algorithm.loss import gaussian_kl, grpo_loss
from mixgrpo.algorithm.transition import gaussian_log_prob, sde_transition
from mixgrpo.config import TrainedStepsConfig
from mixgrpo.models import Policy
from mixgrpo.training.rollout import Rollout


@dataclass(frozen=True)
class Pairs:
    """(image, SDE step) pairs that go through the network together."""

    images: Tensor
    """(N,) rows of the rollout."""
    steps: Tensor
    """(N,) index into the rollout's SDE steps."""
    prompts: Tensor | None = None
    """All pairs are at the first SDE step: one network evaluation of each of these prompts serves them."""


Passes = Callable[[Sequence[Pairs]], Iterator[tuple[Pairs, bool]]]
"""The forward and backward passes of an update, and whether each counts; see `Distributed.passes`."""


def all_count(parts: Sequence[Pairs]) -> Iterator[tuple[Pairs, bool]]:
    """Passes of a process that waits for no other."""
    return ((part, True) for part in parts)


def trained_steps(
    config: TrainedStepsConfig, num_steps: int, *, generators: list[torch.Generator]
) -> Tensor:
    """(B, num_steps) bool: which SDE steps of each image enter the loss; one generator per image.

    `random` draws each image's own subset (DanceGRPO), `first` takes the earliest (its 4* row).
    """
    mask = torch.zeros(len(generators), num_steps, dtype=torch.bool)
    if config.choice == "all":
        return ~mask
    if config.choice == "first":
        mask[:, : config.count] = True
        return mask
    for row, generator in zip(mask, generators, strict=True):
        row[torch.randperm(num_steps, generator=generator)[: config.count]] = True
    return mask


def images_of_update(index: int, *, num_prompts: int, group_size: int, num_updates: int) -> Tensor:
    """Rows of the images in update `index`: the next group_size / num_updates of every group, as generated."""
    size = group_size // num_updates
    in_group = torch.arange(index * size, (index + 1) * size)
    return (torch.arange(num_prompts)[:, None] * group_size + in_group).flatten()


def batches_of_pairs(
    images: Tensor, mask: Tensor, *, group_size: int, merge_first: bool, micro_batch: int
) -> Iterator[Pairs]:
    """The pairs that `mask` (B, S) marks for `images`, step by step, `micro_batch` at a time.

    Of the first SDE step, if it is merged, `micro_batch` prompts at a time, dealt as the rollout deals them.
    """
    steps, rows = mask[images].T.nonzero(as_tuple=True)
    first = (steps == 0) & merge_first
    at_first = images[rows[first]]
    for prompts in torch.arange(len(mask) // group_size).split(micro_batch):
        here = torch.isin(at_first // group_size, prompts)
        if here.any():
            yield Pairs(at_first[here], steps[first][here], prompts=prompts)
    rows, steps = rows[~first], steps[~first]
    for part in torch.arange(len(rows)).split(micro_batch):
        if len(part):
            yield Pairs(images[rows[part]], steps[part])


def accumulate_gradients(
    policy: Policy,
    base: Policy | None,
    rollout: Rollout,
    advantages: Tensor,
    images: Tensor,
    mask: Tensor,
    *,
    clip_range: float,
    kl_weight: float,
    micro_batch: int,
    weight: float = 1.0,
    passes: Passes = all_count,
) -> dict[str, Tensor]:
    """Backpropagate the loss of `images` (one update's share) into the policy's gradients.

    advantages: (B,). mask: (B, S) trained steps. The loss is the mean over the pairs (Eq. 9), plus
    kl_weight times the KL to `base`, which may be None at weight 0. weight: of this process among all, in the
    gradients alone. Returns the means of the metrics over this process's pairs.
    """
    total = mask[images].sum()
    sums: dict[str, Tensor] = {}
    size, merge = rollout.group_size, rollout.plan.sharing
    batches = batches_of_pairs(
        images, mask, group_size=size, merge_first=merge, micro_batch=micro_batch
    )
    for pairs, counts in passes(list(batches)):
        share = len(pairs.images) / total * counts
        v = _velocity(policy, rollout, pairs)
        mean, std, log_prob = _replay(rollout, pairs, v)
        old_log_prob = rollout.log_prob[pairs.steps, pairs.images]
        loss, metrics = grpo_loss(log_prob, old_log_prob, advantages[pairs.images], clip_range)
        if base is not None and kl_weight > 0:
            with torch.no_grad():
                base_mean, _, _ = _replay(rollout, pairs, _velocity(base, rollout, pairs))
            kl = gaussian_kl(mean, base_mean, std).mean()
            loss = loss + kl_weight * kl
            metrics["kl"] = kl.detach()
        (loss * (share * weight)).backward()
        if not counts:
            continue
        metrics["loss"] = loss.detach()
        for name, value in metrics.items():
            if name == "ratio_deviation":  # the largest |ratio - 1|
                sums[name] = torch.maximum(sums.get(name, value), value)
            else:
                sums[name] = sums.get(name, 0.0) + share * value
    return sums


def _velocity(policy: Policy, rollout: Rollout, pairs: Pairs) -> Tensor:
    """v (N, ...) of the policy at the pairs' samples."""
    prompts = pairs.images // rollout.group_size
    start = rollout.plan.sde_steps.start
    if pairs.prompts is None:
        x = rollout.trajectory[pairs.steps, pairs.images]
        sigma = rollout.plan.sigmas[start + pairs.steps]
        return policy.velocity(x, sigma, rollout.cond.take(prompts))
    x = rollout.trajectory[0, pairs.prompts * rollout.group_size]
    v = policy.velocity(x, rollout.plan.sigmas[start], rollout.cond.take(pairs.prompts))
    return v[prompts - pairs.prompts[0]]


def _replay(rollout: Rollout, pairs: Pairs, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, std and log-probability of the stored transitions under velocity v: the rollout's own functions."""
    x = rollout.trajectory[pairs.steps, pairs.images]
    x_next = rollout.trajectory[pairs.steps + 1, pairs.images]
    i = rollout.plan.sde_steps.start + pairs.steps
    per_pair = (
        rollout.plan.sigmas[i],
        rollout.plan.sigmas[i + 1],
        rollout.plan.noise_scales[pairs.steps],
    )
    column = (-1, *[1] * (x.ndim - 1))
    mean, std = sde_transition(x, v, *(scale.view(column).to(x.device) for scale in per_pair))
    return mean, std, gaussian_log_prob(x_next, mean, std)
