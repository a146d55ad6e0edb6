"""Colourfulness of Hasler and Suesstrunk (2003), "Measuring colourfulness in natural images".

On the 0..255 scale, over the pixels of one image,

    rg = R - G,  yb = (R + G) / 2 - B
    M  = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2)

No weights, no prompt: a measure that a policy can hack, kept out of training as an out-of-domain column.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixgrpo.errors import UserError


class Colorfulness:
    """M of each image."""

    name = "colorfulness"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,); 0 is grey, above 100 very colourful."""
        red, green, blue = (images.float() * 255).flatten(2).unbind(1)
        rg, yb = red - green, (red + green) / 2 - blue
        spread = (rg.var(1, correction=0) + yb.var(1, correction=0)).sqrt()
        return (spread + 0.3 * (rg.mean(1) ** 2 + yb.mean(1) ** 2).sqrt()).cpu()


def load(path: str | None, device: torch.device) -> Colorfulness:
    """Nothing to load; UserError when a path is given."""
    if path is not None:
        raise UserError(f"reward colorfulness has no weights, but got path {path}. Set it to null.")
    return Colorfulness()
