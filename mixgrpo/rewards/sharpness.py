"""Sharpness: the mean gradient of the luminance, on the 0..255 scale.

    Y = 0.299 R + 0.587 G + 0.114 B,   S = mean |Y(x + 1) - Y(x)| + mean |Y(y + 1) - Y(y)|

No weights, no prompt: a measure that a policy can hack, kept out of training as an out-of-domain column.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixgrpo.errors import UserError

LUMINANCE = (0.299, 0.587, 0.114)


class Sharpness:
    """S of each image."""

    name = "sharpness"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,); 0 is a uniform image."""
        weights = images.new_tensor(LUMINANCE)[:, None, None]
        luminance = 255 * (images * weights).sum(1).float()
        steps = (luminance.diff(dim=axis).abs().flatten(1).mean(1) for axis in (1, 2))
        return sum(steps, start=torch.zeros(len(images), device=images.device)).cpu()


def load(path: str | None, device: torch.device) -> Sharpness:
    """Nothing to load; UserError when a path is given."""
    if path is not None:
        raise UserError(f"reward sharpness has no weights, but got path {path}. Set it to null.")
    return Sharpness()
