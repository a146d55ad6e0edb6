"""Convolutional judges: what is in a picture, and how degraded it is.

`tiny_image_reward` is trained on lightly spoiled pictures to name the attributes. `tiny_unified`, which
no run trains on, has its own seed, sees pictures at every level of degradation, and learns to name the
level too.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from mixgrpo.errors import UserError
from mixgrpo.tiny.config import PretrainConfig
from mixgrpo.tiny.degrade import augment, degrade
from mixgrpo.tiny.fit import fit
from mixgrpo.tiny.grammar import SLOTS
from mixgrpo.tiny.pictures import Pictures, for_judges

BATCH = 64
LEARNING_RATE = 4.0e-3
LEVEL_WEIGHT = 4.0
"""Of the squared error of the level, beside the cross-entropies of the slots."""


class Judge(nn.Module):
    """Three strided convolutions, flattened, and two heads: answers per slot, level of degradation."""

    def __init__(self, width: int = 24, hidden: int = 128):
        super().__init__()
        self.config = {
            "width": width,
            "hidden": hidden,
            "slots": {k: len(v) for k, v in SLOTS.items()},
        }
        self.body = nn.Sequential(
            *_convolution(3, width),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 4 * width),
            nn.Flatten(),
            nn.Linear(4 * width * 16, hidden),
            nn.SiLU(),
        )
        self.slots = nn.Linear(hidden, sum(len(words) for words in SLOTS.values()))
        self.level = nn.Linear(hidden, 1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images (B, 3, 32, 32) in [0, 1] -> log-probabilities (B, answers) per slot, level (B,)."""
        hidden = self.body(images * 2 - 1)
        logits = self.slots(hidden).split([len(words) for words in SLOTS.values()], -1)
        return [slot.log_softmax(-1) for slot in logits], self.level(hidden)[:, 0]


def _convolution(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, out_channels, 3, 2, 1),
        nn.GroupNorm(4, out_channels),
        nn.SiLU(),
    )


def answer_log_probs(log_probs: list[Tensor], labels: Tensor) -> Tensor:
    """Log-probability (B, slots) of each answer in labels (B, slots); of answer 0 where a label is -1."""
    picked = [
        slot.gather(1, answer[:, None].clamp(min=0))[:, 0]
        for slot, answer in zip(log_probs, labels.T, strict=True)
    ]
    return torch.stack(picked, 1)


def named_mean(values: Tensor, labels: Tensor) -> Tensor:
    """Mean (B,) of values (B, slots) over the slots that the caption names, labels (B, slots) >= 0."""
    named = (labels >= 0).to(values)
    return (values * named).sum(1) / named.sum(1)


def save_judge(judge: Judge, directory: Path) -> None:
    """config.json and model.safetensors."""
    (directory / "config.json").write_text(json.dumps(judge.config, indent=1) + "\n")
    save_file(judge.state_dict(), directory / "model.safetensors")


def load_judge(directory: Path, device: torch.device) -> Judge:
    """The judge that `save_judge` wrote, frozen. UserError when it is missing, damaged or of another grammar."""
    try:
        config = json.loads((directory / "config.json").read_text())
        judge = Judge(width=config["width"], hidden=config["hidden"])
        if config != judge.config:
            raise ValueError(
                f"it answers {config['slots']}, this grammar asks {judge.config['slots']}"
            )
        judge.load_state_dict(load_file(directory / "model.safetensors"))
    except Exception as error:
        raise UserError(
            f"judge {directory} cannot be loaded: {type(error).__name__}: {error}. "
            "Delete the directory and rerun: the `pretrain` stage makes it."
        ) from None
    return judge.eval().requires_grad_(False).to(device)


def _train_alignment(judge: Judge, pictures: Pictures, config: PretrainConfig, name: str) -> float:
    def loss() -> Tensor:
        rows = torch.randint(len(pictures), (BATCH,))
        log_probs, _ = judge(augment(pictures.images[rows]))
        return _cross_entropy(log_probs, pictures.labels[rows])

    return fit(judge, loss, name=name, num_steps=config.judge_steps, learning_rate=LEARNING_RATE)


def _train_unified(judge: Judge, pictures: Pictures, config: PretrainConfig, name: str) -> float:
    def loss() -> Tensor:
        rows = torch.randint(len(pictures), (BATCH,))
        spoiled, level = degrade(pictures.images[rows])
        log_probs, guess = judge(spoiled)
        answers = _cross_entropy(log_probs, pictures.labels[rows])
        return answers + LEVEL_WEIGHT * functional.mse_loss(guess, level)

    return fit(judge, loss, name=name, num_steps=config.judge_steps, learning_rate=LEARNING_RATE)


def _cross_entropy(log_probs: list[Tensor], labels: Tensor) -> Tensor:
    """Sum over slots of the mean over the pictures whose caption says."""
    losses = [
        functional.nll_loss(p, y, ignore_index=-1)
        for p, y in zip(log_probs, labels.T, strict=True)
        if (y >= 0).any()
    ]
    return torch.stack(losses).sum()


TRAINERS = {"tiny_image_reward": _train_alignment, "tiny_unified": _train_unified}


def pretrain(component: str, config: PretrainConfig, directory: Path) -> dict[str, float]:
    """Train and save one judge; returns its final loss."""
    pictures, judge = for_judges(config.num_pictures), Judge()
    loss = TRAINERS[component](judge, pictures, config, component)
    save_judge(judge, directory)
    return {"loss": loss}
