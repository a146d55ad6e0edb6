"""ImageReward's network: sizes read off a checkpoint, and the network itself in transformers' BLIP classes.

Xu et al. (2023), "ImageReward": a picture and its prompt go through BLIP together, in pairs; the text's first
feature goes through five linear layers to one number.

    score = (mlp(text(prompt, vision(picture))[0]) - MEAN) / STD
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the network's outputs on the authors' data: their scores have about mean 0 and standard deviation 1."""
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_TOKENS = 35
HEAD = 64
"""Features of one attention head of the vision model, in all sizes of BLIP."""
TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)
"""What med_config.json says of the text model."""
CHARACTERISTIC = (
    "blip.text_encoder.embeddings.word_embeddings.weight",
    "blip.visual_encoder.patch_embed.proj.weight",
    "blip.visual_encoder.pos_embed",
    "mlp.layers.0.weight",
)
"""Tensors by which a checkpoint is known."""
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Parts of a checkpoint that no score depends on."""
RENAMED = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (
        r"^blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.",
        r"vision.encoder.layers.\1.layer_norm\2.",
    ),
    (
        r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.",
        r"vision.encoder.layers.\1.self_attn.qkv.",
    ),
    (
        r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"vision.encoder.layers.\1.self_attn.projection.",
    ),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "mlp."),
)


@dataclass(frozen=True)
class VisionSize:
    """The size of a checkpoint's vision model."""

    image: int
    """Height and width of a picture, pixels."""
    patch: int
    width: int
    depth: int

    @property
    def heads(self) -> int:
        """Of each attention layer."""
        return self.width // HEAD


PUBLISHED = VisionSize(image=224, patch=16, width=1024, depth=24)
"""ImageReward v1.0's, the only one there is; others are for tests."""


def vision_size(weights: Mapping[str, Tensor]) -> VisionSize:
    """From the shapes in a checkpoint. It has all that is `CHARACTERISTIC`."""
    width, _, patch, _ = weights["blip.visual_encoder.patch_embed.proj.weight"].shape
    num_patches = weights["blip.visual_encoder.pos_embed"].shape[1] - 1
    blocks = {
        match[1] for key in weights if (match := re.search(r"visual_encoder\.blocks\.(\d+)", key))
    }
    return VisionSize(round(num_patches**0.5) * patch, patch, width, len(blocks))


def preprocess(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, size, size): shorter edge to `size`, the middle of it, normalised.

    The authors do this to 8-bit Pillow images: the same but for their rounding after resizing.
    """
    height, width = images.shape[-2:]
    short, long = min(height, width), max(height, width)
    if short != size:
        longer = int(size * long / short)
        target = (longer, size) if width <= height else (size, longer)
        resized = functional.interpolate(images, size=target, mode="bicubic", antialias=True)
        images = resized.clamp(0, 1)
    top, left = (round((edge - size) / 2) for edge in images.shape[-2:])
    images = images[..., top : top + size, left : left + size]
    mean, std = (images.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images - mean) / std


class ImageRewardNetwork(nn.Module):
    """The network on transformers alone, for checkpoints of the authors' format."""

    def __init__(self, vision: VisionSize, med_config: Mapping[str, Any]):
        super().__init__()
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=vision.width,
                intermediate_size=4 * vision.width,
                num_hidden_layers=vision.depth,
                num_attention_heads=vision.heads,
                image_size=vision.image,
                patch_size=vision.patch,
                hidden_act="gelu",
                layer_norm_eps=1e-6,
            )
        )
        # is_decoder: with cross attention. Called with is_decoder=False: every token sees every other.
        sizes = {key: med_config[key] for key in TEXT_SIZES}
        self.text = BlipTextModel(
            BlipTextConfig(
                encoder_hidden_size=vision.width,
                is_decoder=True,
                bos_token_id=None,
                sep_token_id=None,
                **sizes,
            ),
            add_pooling_layer=False,
        )
        widths = (med_config["hidden_size"], 1024, 128, 64, 16, 1)
        layers: list[nn.Module] = [nn.Linear(a, b) for a, b in pairwise(widths)]
        for place in (1, 3, 5):  # dropout, off in scoring, takes numbers in the checkpoint's keys
            layers.insert(place, nn.Identity())
        self.mlp = nn.Sequential(*layers)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pixels (B, 3, size, size), token ids and mask (B, MAX_TOKENS) -> scores (B,), fp32."""
        picture = self.vision(pixel_values=pixels).last_hidden_state
        text = self.text(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=picture,
            encoder_attention_mask=mask.new_ones(picture.shape[:2]),
            is_decoder=False,
        )
        return (self.mlp(text.last_hidden_state[:, 0].float()).squeeze(-1) - MEAN) / STD


def native_network(
    vision: VisionSize, med_config: Mapping[str, Any], device: torch.device
) -> ImageRewardNetwork:
    """On `device`, its weights yet to be loaded: made without drawing any at random."""
    with torch.device("meta"):
        network = ImageRewardNetwork(vision, med_config)
    network.to_empty(device=device)
    positions = torch.arange(med_config["max_position_embeddings"], device=device)
    network.text.embeddings.position_ids = positions[None]  # in no checkpoint
    return network


def native_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's weights under the names of `ImageRewardNetwork`."""
    renamed = {}
    for key, value in weights.items():
        for pattern, name in RENAMED:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed
