"""Floating-point operations of one forward pass, counted from a transformer's config: a multiply-add is two.

Matrix products and attention only, as is usual for model FLOPs utilisation. Of N = I + S tokens, image and text:

    a layer n -> m of t tokens: 2 t n m            joint attention: 4 N^2 d
"""

from collections.abc import Mapping
from typing import Any

TIME_CHANNELS = 256
"""Of the embedding of a timestep."""


def forward_flops(config: Mapping[str, Any], *, image_tokens: int, text_tokens: int) -> float:
    """Of one image. config: of a FluxTransformer2DModel or SD3Transformer2DModel."""
    count = {"FluxTransformer2DModel": _flux, "SD3Transformer2DModel": _sd3}
    return 2.0 * count[config["_class_name"]](config, image_tokens, text_tokens)


def _flux(config: Mapping[str, Any], image: int, text: int) -> int:
    """Multiply-adds. Both kinds of block have 12 d^2 weights for each token."""
    d = config["num_attention_heads"] * config["attention_head_dim"]
    tokens = image + text
    block = 12 * tokens * d**2 + 2 * tokens**2 * d
    num_embedded = 1 + bool(config["guidance_embeds"])  # the timestep, and the guidance like it
    ends = image * config["in_channels"] * d + text * config["joint_attention_dim"] * d
    ends += num_embedded * (TIME_CHANNELS * d + d**2) + config["pooled_projection_dim"] * d + d**2
    ends += 2 * d**2 + image * d * (config["out_channels"] or config["in_channels"])
    double, single = config["num_layers"], config["num_single_layers"]
    modulation = (12 * double + 3 * single) * d**2
    return (double + single) * block + modulation + ends


def _sd3(config: Mapping[str, Any], image: int, text: int) -> int:
    """Multiply-adds. The last block drops the text after attention; dual ones attend to the image once more."""
    d = config["num_attention_heads"] * config["attention_head_dim"]
    tokens, layers, duals = image + text, config["num_layers"], len(config["dual_attention_layers"])
    blocks = layers * (12 * tokens * d**2 + 2 * tokens**2 * d) - 9 * text * d**2
    blocks += duals * (4 * image * d**2 + 2 * image**2 * d)
    modulation = (12 * layers - 4 + 3 * duals) * d**2
    patch = config["patch_size"] ** 2
    ends = image * config["in_channels"] * patch * d + text * config["joint_attention_dim"] * d
    ends += TIME_CHANNELS * d + d**2 + config["pooled_projection_dim"] * d + d**2
    ends += 2 * d**2 + image * d * patch * config["out_channels"]
    return blocks + modulation + ends
