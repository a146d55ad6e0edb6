"""Rectified flow, as both base models of the tiny world learn it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

HEAD = 16
"""Width of an attention head of the transformers."""
TRAINING_SHIFT = 2.0
"""Time shift of the noise levels seen in training."""
SAMPLING_SHIFT = 3.0


def training_sigmas(batch: int) -> Tensor:
    """Noise levels (B,): the time shift of sigmoid(normal), s u / (1 + (s - 1) u)."""
    u = torch.randn(batch).sigmoid()
    return TRAINING_SHIFT * u / (1 + (TRAINING_SHIFT - 1) * u)


def flow_loss(x0: Tensor, velocity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean squared error of velocity(x, sigma) at x = (1 - sigma) x0 + sigma noise against noise - x0."""
    sigma, noise = training_sigmas(len(x0)), torch.randn(x0.shape)
    x = torch.lerp(x0, noise, sigma.view(-1, *[1] * (x0.ndim - 1)))
    return functional.mse_loss(velocity(x, sigma), noise - x0)
