"""A reward that tests slow down or break by files in the working directory; its scores are those of colourfulness.

No setting says so: a run that was slowed down or broken is still the same run, with the same result.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.rewards.colorfulness import Colorfulness

PAUSE = Path("pause")
"""Seconds that each call takes longer."""
BROKEN = Path("broken")
"""The rank that fails."""


class Paced(Colorfulness):
    name = "paced"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if BROKEN.exists() and BROKEN.read_text() == os.environ.get("RANK"):
            raise RuntimeError("the reward is broken")
        if PAUSE.exists():
            time.sleep(float(PAUSE.read_text()))
        return super().score(images, prompts)


def load(path: str | None, device: torch.device) -> Paced:
    return Paced()
