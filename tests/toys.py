"""Small stand-ins for a base model and a reward: real arithmetic, no files."""

from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.records import Conditioning

LATENT = (4, 6)


class ToyPolicy:
    """An MLP velocity field on latents (4, 6), conditioned on one embedding (C,) per prompt."""

    def __init__(self, *, seed: int = 0, width: int = 32):
        generator = torch.Generator().manual_seed(seed)
        size = LATENT[0] * LATENT[1]
        self.network: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(size + 3 + 1, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, size),
        )
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.num_evaluations = 0

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return LATENT

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        self.num_evaluations += len(x)
        time = sigma.to(x).expand(len(x))[:, None]
        inputs = torch.cat([x.flatten(1), cond.tensors["embedding"], time], 1)
        return self.network(inputs).view_as(x)

    def conditional_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        return self.velocity(x, sigma, cond)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents.flatten(1)[:, :12]).view(-1, 3, 2, 2)

    def save_weights(self, path: Path) -> None:
        raise AssertionError("toys have no files")

    def load_weights(self, path: Path) -> None:
        raise AssertionError("toys have no files")


class CountingPolicy(ToyPolicy):
    """Zero velocity; only counts, so that thousands of rollouts are cheap."""

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        self.num_evaluations += len(x)
        return torch.zeros_like(x)


class BrightnessReward:
    """Mean of the red channel."""

    name = "brightness"

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images[:, 0].flatten(1).mean(1)


def toy_cond(num_prompts: int, *, seed: int = 1) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning({"embedding": torch.randn(num_prompts, 3, generator=generator)})
