"""SD3.5 of any size with random weights, built in memory: for measuring what an iteration costs.

`path` is an outline (see `_random.py`), such as config/outlines/sd3_medium, which has SD3.5-M's own configs.
"""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.models import Outline, _random
from mixgrpo.models import _diffusers as common
from mixgrpo.models._outline import outline_at
from mixgrpo.models.sd3 import Sd3Policy
from mixgrpo.records import Conditioning


def load(
    config: ModelConfig,
    device: torch.device,
    lora: LoraConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    weights: bool = True,
) -> Sd3Policy:
    """Transformer and VAE of the outline, on `device`. dtype: of frozen weights. weights: of the transformer."""
    path = _random.find_outline(config)
    place = device if weights else torch.device("meta")
    network = _random.build(SD3Transformer2DModel, path / "transformer", place, dtype)
    if lora is not None:
        common.add_lora(network, lora)
    vae = _random.build(AutoencoderKL, path / "vae", device, torch.float32)
    return Sd3Policy(network.to(place), common.frozen_vae(vae), config, base=_random.BASE)


def outline(config: ModelConfig, lora: LoraConfig | None = None) -> Outline:
    """The model without its weights."""
    return outline_at(_random.find_outline(config), config, SD3Transformer2DModel, lora)


def text_encoder(config: ModelConfig, device: torch.device) -> Callable[[list[str]], Conditioning]:
    """Random embeddings, and those of the empty prompt: no text encoder, nothing on `device`."""
    encode = _random.random_encoder(config)
    empty = encode([""]).tensors
    return lambda texts: Conditioning(encode(texts).tensors, empty)
