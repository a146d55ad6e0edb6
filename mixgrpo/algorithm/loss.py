"""The clipped objective (Eq. 8, 9), the optional KL to the base model, and Flow-DPO's loss (Table 3)."""

import torch
from torch import Tensor
from torch.nn import functional

from mixgrpo.algorithm.transition import Scale, latent_mean


def grpo_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped policy loss, the mean over its elements (Eq. 8, 9).

        ratio = exp(log_prob - old_log_prob)
        loss  = mean[ max(-A ratio, -A clip(ratio, 1 - c, 1 + c)) ]

    log_prob, old_log_prob, advantages: one element per image and window step, all in one shape;
    old_log_prob is the rollout's, never recomputed. Returns the loss () and detached metrics ():
    `ratio_mean`; `ratio_deviation`, the largest |ratio - 1|; `clip_fraction`, the share of elements
    with |ratio - 1| > c.

    >>> ratio, A = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    >>> loss, metrics = grpo_loss(ratio.log(), torch.zeros(4), A, clip_range=0.2)
    >>> loss, metrics["clip_fraction"]
    (tensor(0.1500), tensor(1.))
    """
    if not log_prob.shape == old_log_prob.shape == advantages.shape:
        raise ValueError(
            f"log_prob {tuple(log_prob.shape)}, old_log_prob {tuple(old_log_prob.shape)} and "
            f"advantages {tuple(advantages.shape)} must have one shape: an element of each per "
            "image and step."
        )
    if not clip_range > 0:
        raise ValueError(f"clip_range={clip_range} must be positive: at 0 nothing is learned.")
    advantages = advantages.to(log_prob.dtype)
    ratio = torch.exp(log_prob - old_log_prob)
    clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped_ratio).mean()
    deviation = (ratio.detach() - 1).abs()
    return loss, {
        "ratio_mean": ratio.detach().mean(),
        "ratio_deviation": deviation.max(),
        "clip_fraction": (deviation > clip_range).to(ratio.dtype).mean(),
    }


def gaussian_kl(mean: Tensor, base_mean: Tensor, std: Scale) -> Tensor:
    """KL(policy || base) of one transition, averaged like the log-prob (Eq. 8).

        kl = mean[ (mean - base_mean)^2 / (2 std^2) ]

    mean, base_mean: (B, ...) of the policy and of the frozen base model. std: one number, or
    (B, 1, ...). Returns (B,) in the dtype of `mean`.

    >>> gaussian_kl(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), std=0.5)
    tensor([10.])
    """
    std = torch.as_tensor(std).to(mean.dtype)
    return latent_mean((mean - base_mean) ** 2 / (2 * std**2))


def dpo_loss(
    winner_error: Tensor,
    loser_error: Tensor,
    reference_winner_error: Tensor,
    reference_loser_error: Tensor,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Flow-DPO: fit the winner better than the reference does, and more so than the loser.

        e = mean ||v(x_sigma) - (eps - x0)||^2,    margin = (e_l - e_l_ref) - (e_w - e_w_ref)
        loss = mean[ -log sigmoid(beta / 2 margin) ]

    Errors e (N,) of the N compared pairs, of one noise for winner and loser. Returns the loss () and
    detached metrics (): `dpo_margin`, and `dpo_accuracy`, the share of pairs with margin > 0.

    >>> loss, metrics = dpo_loss(*torch.tensor([[0.4], [0.9], [0.5], [0.8]]), beta=10.0)
    >>> loss, metrics["dpo_margin"], metrics["dpo_accuracy"]
    (tensor(0.3133), tensor(0.2000), tensor(1.))
    """
    if not beta > 0:
        raise ValueError(f"beta={beta} must be positive: at 0 nothing is learned.")
    margin = (loser_error - reference_loser_error) - (winner_error - reference_winner_error)
    loss = -functional.logsigmoid(beta / 2 * margin).mean()
    return loss, {
        "dpo_margin": margin.detach().mean(),
        "dpo_accuracy": (margin.detach() > 0).to(margin.dtype).mean(),
    }
