"""CLIP image towers with random weights: what reward models like HPSv2.1 and PickScore cost, and nothing more.

    score = cos(tower(image), direction of the prompt), mean over the towers

By default three ViT-H/14 at 224 x 224: HPS-v2.1, PickScore and CLIP Score are one each. Text towers, which see a prompt
once for all its images, are left out. The scores mean nothing.
"""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mixgrpo.errors import UserError

HEAD = 80
"""Channels of an attention head of ViT-H."""
PROJECTED = 1024


class RandomTowers:
    """The towers, in the dtype that reward models have on their device."""

    name = "vit_random"

    def __init__(self, towers: Sequence[CLIPVisionModelWithProjection]) -> None:
        self.towers = [tower.eval().requires_grad_(False) for tower in towers]
        self.modules = self.towers

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,) in [-1, 1]."""
        first = next(self.towers[0].parameters())
        side = self.towers[0].config.image_size
        pixels = functional.interpolate(images.float(), (side, side), mode="bicubic")
        pixels = (2 * pixels - 1).to(first)
        wanted = torch.stack([direction(prompt) for prompt in prompts]).to(first.device)
        found = [tower(pixel_values=pixels).image_embeds.float() for tower in self.towers]
        return torch.stack([functional.cosine_similarity(f, wanted) for f in found]).mean(0).cpu()


def direction(prompt: str) -> Tensor:
    """(PROJECTED,) a function of the text."""
    generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
    return torch.randn(PROJECTED, generator=generator)


def load(
    path: str | None,
    device: torch.device,
    *,
    towers: int = 3,
    width: int = 1280,
    layers: int = 32,
) -> RandomTowers:
    """Built on `device`, the same in every run; UserError when a path is given."""
    if path is not None:
        raise UserError(f"reward vit_random has no weights, but got path {path}. Set it to null.")
    if towers < 1 or layers < 1 or width < HEAD or width % HEAD:
        raise UserError(
            f"reward vit_random: got towers={towers}, width={width}, layers={layers}. Wanted at least one tower and "
            f"layer, and a width that is a multiple of {HEAD}."
        )
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        patch_size=14,
        image_size=224,
        projection_dim=PROJECTED,
        hidden_act="gelu",
    )
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(0)
        built = [CLIPVisionModelWithProjection(config).to(device, dtype) for _ in range(towers)]
    return RandomTowers(built)
