"""What the tiny world's judges look at."""

import torch
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.tiny.render import SIZE


def tiny_pictures(name: str, images: Tensor, device: torch.device) -> Tensor:
    """Images (B, 3, 32, 32) on the device of the judge of reward `name`. UserError for another size."""
    if images.shape[-2:] != (SIZE, SIZE):
        raise UserError(
            f"reward {name} judges pictures of the tiny world, {SIZE} x {SIZE} pixels, got "
            f"{images.shape[-2]} x {images.shape[-1]}. Score them by another reward."
        )
    return images.to(device, torch.float32)
