"""A base model without its weights: sizes, known in a second and without memory."""

from pathlib import Path
from typing import Any

import diffusers
import torch

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.models import Outline
from mixgrpo.models import _diffusers as common
from mixgrpo.models import _directory as directory


def outline(config: ModelConfig, family: directory.Family, lora: LoraConfig | None) -> Outline:
    """Of the directory that `config` names, fetched if it is on the hub."""
    path = directory.find(config, family, directory.TRAINED)
    return outline_at(path, config, getattr(diffusers, family.transformer), lora)


def outline_at(
    path: Path, config: ModelConfig, kind: type[Any], lora: LoraConfig | None
) -> Outline:
    """Of the directory `path`, which needs no weights. kind: class of its transformer."""
    with torch.device("meta"):
        network = kind.from_config(directory.read_config(path / "transformer" / "config.json"))
    if lora is not None:
        common.add_lora(network, lora)
    blocks = directory.read_config(path / "vae" / "config.json")["block_out_channels"]
    side = config.resolution // 2 ** len(blocks)  # a token is 2 x 2 latent pixels
    return Outline(network, side**2)
