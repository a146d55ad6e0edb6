"""The tiny world's CLIP Score: a plain contrastive CLIP; plain cosine. No run trains on it."""

import torch

from mixgrpo.rewards import directory_of
from mixgrpo.rewards._clip import ClipReward, load_clip


def load(path: str | None, device: torch.device) -> ClipReward:
    """The CLIP that the `pretrain` stage saved at `path`."""
    return load_clip("tiny_clip_score", directory_of("tiny_clip_score", path), device)
