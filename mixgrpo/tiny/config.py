"""Sizes and steps of the tiny world's pretraining. Torch-free, because the workflow checks it to plan."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mixgrpo.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One base world: its generator and its judges. The defaults are the preset `tiny`."""

    seed: int = 0
    """Of everything that is drawn: pictures, initial weights, batches."""
    num_pictures: int = 12_000
    """Pictures drawn once, two thirds of one object; judges see a third more, with the held-out pairs."""
    vae_channels: tuple[int, ...] = (16, 32, 32)
    """Channels of the autoencoder's blocks; each but the last halves the picture."""
    vae_steps: int = 600
    vae_batch: int = 16
    vae_learning_rate: float = 5.0e-3
    width: int = 64
    """Width of the transformer, in heads of 16."""
    num_double_blocks: int = 2
    num_single_blocks: int = 2
    flow_steps: int = 600
    flow_batch: int = 64
    flow_learning_rate: float = 6.0e-3
    flow_average: float = 0.995
    """Decay per step of the average of the weights that is kept."""
    sd3_steps: int = 400
    """Of the second generator, which has the batch and the average of the first."""
    sd3_learning_rate: float = 1.5e-2
    sd3_blocks: int = 4
    """Joint blocks of the second generator; the first half has SD3.5's second attention."""
    sd3_caption_dropout: float = 0.1
    """Share of pictures shown without their caption, for classifier-free guidance."""
    clip_steps: int = 300
    """Of the plain contrastive CLIP and of both preference CLIPs."""
    judge_steps: int = 300
    """Of both convolutional judges."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "seed" and min(value if isinstance(value, tuple) else (value,)) <= 0:
                raise ValueError(f"{field.name}={value} must be positive.")
        if self.width % 16:
            raise ValueError(f"width={self.width} must be a multiple of 16, the size of a head.")
        if len(self.vae_channels) != 3 or any(c % 8 for c in self.vae_channels):
            raise ValueError(
                f"vae_channels={list(self.vae_channels)} must be three multiples of 8: a 32 x 32 "
                "picture becomes 8 x 8 latents, normalised in groups of 8 channels."
            )
        for name in ("flow_average", "sd3_caption_dropout"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be below 1.")


def parse(data: Any, *, where: str) -> PretrainConfig:
    """Check `data` and build the config. UserError names every bad key and its value."""
    try:
        return TypeAdapter(PretrainConfig).validate_json(json.dumps(data))
    except ValidationError as error:
        problems = [
            f"  {'.'.join(map(str, e['loc'])) or 'pretrain'}: got {e['input']!r}. {e['msg']}"
            for e in error.errors()
        ]
        raise UserError(
            "\n".join([f"{where}: pretraining settings do not hold:", *problems])
        ) from None


def read_pretrain_config(path: Path) -> PretrainConfig:
    """The config from a JSON file that the workflow wrote."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. `snakemake {path}` writes it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not JSON ({error}). Delete it; the workflow writes it again."
        ) from None
    return parse(data, where=str(path))
