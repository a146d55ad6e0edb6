"""The tiny world's CLIP Score: `clip_score` with a plain contrastive CLIP. No run trains on it."""

import torch

from mixgrpo.rewards import clip_score, directory_of
from mixgrpo.rewards._clip import ClipReward


def load(path: str | None, device: torch.device) -> ClipReward:
    """The CLIP that the `pretrain` stage saved at `path`."""
    return clip_score.load_as("tiny_clip_score", str(directory_of("tiny_clip_score", path)), device)
