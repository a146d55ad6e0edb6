"""The tiny world's HPS-v2.1: a preference CLIP with patches of 8 pixels; plain cosine."""

import torch

from mixgrpo.rewards import directory_of
from mixgrpo.rewards._clip import ClipReward, load_clip


def load(path: str | None, device: torch.device) -> ClipReward:
    """The CLIP that the `pretrain` stage saved at `path`."""
    directory = directory_of("tiny_hps", path)
    return load_clip("tiny_hps", directory, device, version="tiny world")
