"""Reward models behind one protocol, a file each: the name in the config is the file's name.

A file that starts with _ is what several rewards share.

With models/ and tiny/ the only place that imports transformers. May import tiny, config, errors; never
models.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from mixgrpo.errors import RewardError, UserError
from mixgrpo.imports import import_module


class Reward(Protocol):
    """Scores images on the raw scale its authors report."""

    name: str

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] and their B prompts -> scores (B,), fp32, on the CPU."""


class CheckedReward:
    """A reward that stops the run instead of handing on something that is not a score per image."""

    def __init__(self, name: str, reward: Reward):
        self.name = name
        self.reward = reward

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Reward.score`. RewardError when the lengths differ or a score is missing or not finite."""
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        if isinstance(prompts, str | Tensor) or len(shape) != 4 or shape[1] != 3:
            raise RewardError(
                f"reward {self.name}: got images {shape} and prompts of type "
                f"{type(prompts).__name__}, wanted a tensor (B, 3, H, W) and a list of B strings."
            )
        if len(images) != len(prompts):
            raise RewardError(
                f"reward {self.name}: got {len(images)} images and {len(prompts)} prompts, "
                "wanted one prompt per image. Repeat each prompt for every image of its group."
            )
        if len(images) == 0:
            return torch.zeros(0)
        scores = self.reward.score(images, prompts).detach().float().cpu()
        if scores.shape != (len(images),):
            raise RewardError(
                f"reward {self.name} returned scores of shape {tuple(scores.shape)} for "
                f"{len(images)} images ({_excerpt(prompts)}), wanted ({len(images)},). "
                f"Mend `score` in mixgrpo/rewards/{self.name}.py."
            )
        bad = [
            prompt for prompt, score in zip(prompts, scores, strict=True) if not score.isfinite()
        ]
        if bad:
            raise RewardError(
                f"reward {self.name} is not finite for {len(bad)} of {len(images)} images "
                f"({_excerpt(bad)}). Look at these images first: a NaN in them comes from the "
                "policy (lower training.learning_rate), one in the score from the reward's weights."
            )
        return scores


def _excerpt(prompts: Sequence[str]) -> str:
    shown = ", ".join(repr(prompt) for prompt in prompts[:3])
    return f"prompts {shown}" + (f" and {len(prompts) - 3} more" if len(prompts) > 3 else "")


def module_of(name: str) -> ModuleType:
    """`mixgrpo/rewards/{name}.py`. UserError lists the files there are."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    if name not in names:
        raise UserError(
            f"reward {name!r} is no file of mixgrpo/rewards/. There are: {', '.join(names)}."
        )
    return import_module(f"mixgrpo.rewards.{name}")


def load_reward(name: str, path: str | None, device: torch.device) -> CheckedReward:
    """The reward `name` with its weights from `path`, on `device`, its scores checked."""
    return CheckedReward(name, module_of(name).load(path, device))


def directory_of(name: str, path: str | None) -> Path:
    """`path` as the directory of the weights of reward `name`. UserError when it is not given or not there."""
    if path is None:
        raise UserError(
            f"reward {name} needs its weights: give `path`, a directory, in the preset's rewards."
        )
    if not Path(path).is_dir():
        raise UserError(
            f"reward {name}: directory {path} does not exist. For preset tiny the `pretrain` stage "
            "makes it; with other weights, give the path they are at."
        )
    return Path(path)
