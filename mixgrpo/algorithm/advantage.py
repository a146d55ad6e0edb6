"""From rewards to advantages: each reward is standardised in its group, then all are merged."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def group_advantages(rewards_PG: Tensor) -> Tensor:
    """How much better each image is than the others of its prompt, by one reward (Algorithm 1).

        A = (r - mean_G(r)) / (std_G(r) + 1e-8),    std with G - 1

    rewards_PG: (P, G), raw scale. Returns (P, G) float64: in fp32, the rounding of their mean would
    give equal rewards advantages of up to 0.9.

    >>> group_advantages(torch.tensor([[1.0, 2.0, 3.0], [0.1, 0.1, 0.1]]))
    tensor([[-1.0000,  0.0000,  1.0000],
            [ 0.0000,  0.0000,  0.0000]], dtype=torch.float64)
    """
    if rewards_PG.dim() != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {tuple(rewards_PG.shape)}, want (prompts, images of a prompt), "
            "2 images or more. Reshape them to one row per prompt."
        )
    if not rewards_PG.isfinite().all():
        prompt, image = (~rewards_PG.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"the reward of prompt {prompt}, image {image} is {rewards_PG[prompt, image].item()}, "
            "want a finite number. A failed reward stops the run: look into the reward model."
        )
    rewards = rewards_PG.double()
    rewards = rewards - rewards[:, :1]  # changes no difference; equal rewards are now exactly 0
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-8)


def combine(advantages: Mapping[str, Tensor], weights: Mapping[str, float], clip: float) -> Tensor:
    """Merges the advantages of several rewards (section 4.2).

        A = clip( sum_k w_k A_k / sum_k w_k, -c, c )

    advantages, weights: by name of the reward; each tensor (P, G). Returns (P, G).

    >>> advantages = {"a": torch.tensor([[-2.0, 2.0]]), "b": torch.tensor([[9.0, 6.0]])}
    >>> combine(advantages, {"a": 1.0, "b": 1.0}, clip=3.8)
    tensor([[3.5000, 3.8000]])
    """
    if not advantages or advantages.keys() != weights.keys():
        raise ValueError(
            f"advantages of {sorted(advantages)}, weights of {sorted(weights)}: give one weight to "
            "each reward and to no other."
        )
    total = sum(weights.values())
    if not (0 < total < math.inf and min(weights.values()) >= 0):
        raise ValueError(
            f"weights {dict(weights)} must be 0 or more, at least one of them above 0."
        )
    if not clip > 0:
        raise ValueError(f"clip={clip} must be positive: at 0 every advantage is 0.")
    shapes = {name: tuple(tensor.shape) for name, tensor in advantages.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"advantages of {shapes}: score the same images with every reward.")
    weighted = [weights[name] / total * tensor for name, tensor in advantages.items()]
    return torch.stack(weighted).sum(0).clamp(-clip, clip)
