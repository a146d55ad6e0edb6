"""The tiny world's ImageReward: does the picture show what the caption says?

score = mean over the slots that the caption names of max(log p(answer | picture), FLOOR)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixgrpo.rewards import directory_of
from mixgrpo.rewards._tiny import tiny_pictures
from mixgrpo.tiny.grammar import parse
from mixgrpo.tiny.judges import Judge, answer_log_probs, load_judge, named_mean
from mixgrpo.tiny.render import labels

FLOOR = -8.0


class TinyImageReward:
    """Mean log-probability of the caption's attributes."""

    name = "tiny_image_reward"

    def __init__(self, judge: Judge, device: torch.device):
        self.judge = judge
        self.modules = [judge]
        self.device = device

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, 32, 32) and B captions -> (B,), at most 0. UserError for another size or grammar."""
        asked = labels([parse(prompt) for prompt in prompts]).to(self.device)
        log_probs, _ = self.judge(tiny_pictures(self.name, images, self.device))
        answers = answer_log_probs(log_probs, asked).clamp(min=FLOOR)
        return named_mean(answers, asked).cpu()


def load(path: str | None, device: torch.device) -> TinyImageReward:
    """The judge that the `pretrain` stage saved at `path`."""
    return TinyImageReward(load_judge(directory_of("tiny_image_reward", path), device), device)
