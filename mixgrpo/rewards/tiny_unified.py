"""The tiny world's Unified Reward: what is shown, and how well, on a scale from 1 to 5. No run trains on it.

    score = 1 + 4 * mean over the named slots of p(answer | picture) * (1 - clamp(level, 0, 1))

where the level of degradation is the judge's own guess.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixgrpo.rewards import directory_of
from mixgrpo.rewards._tiny import tiny_pictures
from mixgrpo.tiny.grammar import parse
from mixgrpo.tiny.judges import Judge, answer_log_probs, load_judge, named_mean
from mixgrpo.tiny.render import labels


class TinyUnified:
    """Attributes and degradation as one network sees them."""

    name = "tiny_unified"

    def __init__(self, judge: Judge, device: torch.device):
        self.judge = judge
        self.modules = [judge]
        self.device = device

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, 32, 32) and B captions -> (B,) in [1, 5]. UserError for another size or grammar."""
        asked = labels([parse(prompt) for prompt in prompts]).to(self.device)
        log_probs, level = self.judge(tiny_pictures(self.name, images, self.device))
        alignment = named_mean(answer_log_probs(log_probs, asked).exp(), asked)
        return (1 + 4 * alignment * (1 - level.clamp(0, 1))).cpu()


def load(path: str | None, device: torch.device) -> TinyUnified:
    """The judge that the `pretrain` stage saved at `path`."""
    return TinyUnified(load_judge(directory_of("tiny_unified", path), device), device)
