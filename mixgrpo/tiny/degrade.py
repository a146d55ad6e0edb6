"""Ways to spoil pictures (B, 3, H, W) in [0, 1], so that judges learn what imperfect samples look like.

Randomness is torch's global stream: `fit.seeded` sets it.
"""

import torch
from torch import Tensor
from torch.nn import functional

WARP = 0.07
"""Largest typical displacement, in units of half the picture."""
BLOTCH = 0.06
"""Typical amplitude of the low-frequency blotches."""


def blur(images: Tensor) -> Tensor:
    """Mean over 3 x 3 pixels."""
    return functional.avg_pool2d(functional.pad(images, (1,) * 4, mode="replicate"), 3, 1)


def augment(images: Tensor) -> Tensor:
    """Light blur and noise: keeps a judge smooth on imperfect samples without telling it how bad they are."""
    n = len(images)
    amount = torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) > 0.4)
    blurred = torch.lerp(images, blur(images), amount)
    return blurred + 0.12 * torch.rand(n, 1, 1, 1) * torch.randn_like(images)


def degrade(images: Tensor) -> tuple[Tensor, Tensor]:
    """Warp, blur and blotches as an unfinished generator makes them -> (pictures, u).

    u (B,) ~ U(0, 1) is each picture's level of degradation. The blur follows u exactly, or a judge could
    not tell a sample from a clean picture; warp and blotches are up to u.
    """
    n, size = len(images), images.shape[-2:]
    level = torch.rand(n)

    def smooth_noise(channels: int, cells: int) -> Tensor:
        coarse = torch.randn(n, channels, cells, cells)
        fine = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
        return fine * (level * torch.rand(n))[:, None, None, None]

    identity = torch.eye(2, 3).expand(n, 2, 3)
    grid = functional.affine_grid(identity, list(images.shape), align_corners=False)
    grid = grid + WARP * smooth_noise(2, 8).permute(0, 2, 3, 1)
    warped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    spoiled = torch.lerp(warped, blur(blur(warped)), level[:, None, None, None])
    return (spoiled + BLOTCH * smooth_noise(3, 12)).clamp(0, 1), level
