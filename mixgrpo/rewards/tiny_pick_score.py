"""The tiny world's Pick Score: `pick_score` with a preference CLIP with patches of 4 pixels and its own seed."""

import torch

from mixgrpo.rewards import directory_of, pick_score
from mixgrpo.rewards._clip import ClipReward


def load(path: str | None, device: torch.device) -> ClipReward:
    """The CLIP that the `pretrain` stage saved at `path`."""
    directory = directory_of("tiny_pick_score", path)
    return pick_score.load_as("tiny_pick_score", directory, device, version="tiny world")
