"""Small networks with random weights, saved as open_clip and HPS save theirs."""

import math
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.rewards._open_clip import names

PERIOD = 1 << 20
"""Random numbers drawn for one tensor; larger tensors repeat them."""


def open_clip_state(
    *,
    width: int = 128,
    layers: int = 2,
    patch: int = 14,
    grid: int = 4,
    text_width: int = 64,
    text_layers: int = 2,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A CLIP of open_clip, 49408 tokens, 77 of them in a prompt; its features differ between inputs."""
    generator = torch.Generator().manual_seed(0)

    def shape(name: str) -> tuple[int, ...]:
        w = width if name.startswith("visual.") else text_width
        for end, size in {
            "logit_scale": (),
            "visual.positional_embedding": (grid**2 + 1, w),
            "conv1.weight": (w, 3, patch, patch),
            "visual.proj": (w, text_width),
            "text_projection": (w, text_width),
            "token_embedding.weight": (49408, w),
            "positional_embedding": (77, w),
            "in_proj_weight": (3 * w, w),
            "in_proj_bias": (3 * w,),
            "c_fc.weight": (4 * w, w),
            "c_fc.bias": (4 * w,),
            "c_proj.weight": (w, 4 * w),
            "out_proj.weight": (w, w),
        }.items():
            if name.endswith(end):
                return size
        return (w,)

    def tensor(name: str) -> Tensor:
        size = shape(name)
        count = math.prod(size)
        drawn = torch.randn(min(count, PERIOD), generator=generator)
        values = drawn.repeat(-(-count // PERIOD))[:count].view(size)
        if "ln_" in name and name.endswith("weight"):
            values = 1 + values / 10
        elif "embedding" not in name:
            values *= (2 / (math.prod(size[1:]) if len(size) > 1 else 100)) ** 0.5
        return values.to(dtype)

    state = {name: tensor(name) for name in names(layers, text_layers)}
    return state | {"logit_scale": torch.tensor(4.6052)}


def make_hps_v2_1(directory: Path) -> str:
    """As HPS_v2.1_compressed.pt: fp16, under the key state_dict; the path of the file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "small_hps_v2_1.pt"
    torch.save({"state_dict": open_clip_state(dtype=torch.float16)}, file)
    return str(file)
