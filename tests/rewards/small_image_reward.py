"""A small ImageReward with random weights in the authors' file format."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.rewards._blip import VisionSize

SIZE = VisionSize(image=64, patch=16, width=128, depth=2)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,!'-", "a", "the", "red", "cat", "dog"]
WORDS += [w for letter in LETTERS for w in (letter, f"##{letter}") if w not in WORDS]
MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS) + 2,
    "encoder_width": 768,
    "add_cross_attention": True,
}
"""As the authors' file, but for the numbers of layers, inner features and tokens."""
FULL_MED_CONFIG = MED_CONFIG | {
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "vocab_size": 30524,
}


def shapes(vision: VisionSize, med_config: dict) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint, in the authors' names."""
    made: dict[str, tuple[int, ...]] = {}

    def linear(name: str, wide: int, out: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = (out, wide), (out,)

    def norm(name: str, wide: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = (wide,), (wide,)

    width, patches = vision.width, (vision.image // vision.patch) ** 2
    visual = "blip.visual_encoder"
    made[f"{visual}.cls_token"] = (1, 1, width)
    made[f"{visual}.pos_embed"] = (1, patches + 1, width)
    made[f"{visual}.patch_embed.proj.weight"] = (width, 3, vision.patch, vision.patch)
    made[f"{visual}.patch_embed.proj.bias"] = (width,)
    for i in range(vision.depth):
        block = f"{visual}.blocks.{i}"
        norm(f"{block}.norm1", width)
        linear(f"{block}.attn.qkv", width, 3 * width)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.mlp.fc1", width, 4 * width)
        linear(f"{block}.mlp.fc2", 4 * width, width)
    norm(f"{visual}.norm", width)
    hidden, inner = med_config["hidden_size"], med_config["intermediate_size"]
    text = "blip.text_encoder"
    made[f"{text}.embeddings.position_ids"] = (1, med_config["max_position_embeddings"])
    made[f"{text}.embeddings.word_embeddings.weight"] = (med_config["vocab_size"], hidden)
    positions = (med_config["max_position_embeddings"], hidden)
    made[f"{text}.embeddings.position_embeddings.weight"] = positions
    norm(f"{text}.embeddings.LayerNorm", hidden)
    for i in range(med_config["num_hidden_layers"]):
        layer = f"{text}.encoder.layer.{i}"
        for attention, source in (("attention", hidden), ("crossattention", width)):
            linear(f"{layer}.{attention}.self.query", hidden, hidden)
            linear(f"{layer}.{attention}.self.key", source, hidden)
            linear(f"{layer}.{attention}.self.value", source, hidden)
            linear(f"{layer}.{attention}.output.dense", hidden, hidden)
            norm(f"{layer}.{attention}.output.LayerNorm", hidden)
        linear(f"{layer}.intermediate.dense", hidden, inner)
        linear(f"{layer}.output.dense", inner, hidden)
        norm(f"{layer}.output.LayerNorm", hidden)
    linear("blip.vision_proj", width, 256)
    linear("blip.text_proj", hidden, 256)
    for place, wide, out in ((0, 768, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1)):
        linear(f"mlp.layers.{place}", wide, out)
    return made


def random_weights(vision: VisionSize, med_config: dict) -> dict[str, Tensor]:
    """Drawn so that scores differ between pictures and between prompts by some tenths."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes(vision, med_config).items():
        if name.endswith("position_ids"):
            weights[name] = torch.arange(shape[1])[None]
            continue
        drawn = torch.randn(shape, generator=generator)
        is_norm = "norm" in name.lower()
        if len(shape) == 1:
            weights[name] = 0.1 * drawn + (1 if is_norm and name.endswith("weight") else 0)
        else:
            weights[name] = drawn / math.sqrt(max(1, drawn[0].numel()))
    return weights


def save(
    directory: Path, weights: dict[str, Tensor], med_config: dict, words: list[str] = WORDS
) -> None:
    """The three files."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(weights, directory / "ImageReward.pt")
    (directory / "med_config.json").write_text(json.dumps(med_config, indent=2))
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")


def make_image_reward(directory: Path) -> str:
    """ImageReward.pt, med_config.json and vocab.txt in `directory`; its path."""
    save(directory, random_weights(SIZE, MED_CONFIG), MED_CONFIG)
    return str(directory)
