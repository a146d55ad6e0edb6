"""The tiny world's Pick Score: a preference CLIP with patches of 4 pixels and its own seed.

Pick Score is exp(logit scale) times the cosine, and is reported divided by 100; so is this.
"""

import torch

from mixgrpo.rewards import directory_of
from mixgrpo.rewards._clip import ClipReward, load_clip, logit_scale


def load(path: str | None, device: torch.device) -> ClipReward:
    """The CLIP that the `pretrain` stage saved at `path`."""
    reward = load_clip("tiny_pick_score", directory_of("tiny_pick_score", path), device)
    reward.scale = logit_scale(reward.model) / 100
    return reward
