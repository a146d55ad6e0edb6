"""CLIPs trained from scratch: a plain contrastive one, and two that also learned preferences.

HPS and Pick Score are CLIPs that learned which of two pictures of one caption people prefer. Here the
less degraded of two is preferred.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from mixgrpo.tiny.config import PretrainConfig
from mixgrpo.tiny.degrade import augment, degrade
from mixgrpo.tiny.fit import fit
from mixgrpo.tiny.pictures import for_judges
from mixgrpo.tiny.render import SIZE
from mixgrpo.tiny.text import clip_text_config, clip_tokenizer, token_ids

BATCH = 64
LEARNING_RATE = 3.0e-3
WEIGHT_DECAY = 0.01
MAX_LOGIT_SCALE = 3.0
"""Bound of the log of the logit scale: keeps differences of cosines wide enough to read."""
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Kind:
    """What distinguishes the three CLIPs."""

    patch: int
    preference_weight: float


KINDS = {
    "tiny_hps": Kind(patch=8, preference_weight=3.0),
    "tiny_pick_score": Kind(patch=4, preference_weight=3.0),
    "tiny_clip_score": Kind(patch=8, preference_weight=0.0),
}


def build_clip(tokenizer: CLIPTokenizer, *, patch: int, width: int = 64) -> CLIPModel:
    """A CLIP of 2 + 2 layers for pictures of the tiny world."""
    size = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": width,
    }
    vision = CLIPVisionConfig(image_size=SIZE, patch_size=patch, **size)
    text = clip_text_config(tokenizer, width)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width
    )
    return CLIPModel(config)


def contrastive_loss(logits_per_text: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy in both directions; equal captions (B, L) of a batch share the target.

    logits_per_text: (B, B), row = caption, column = picture.
    """
    same = (ids[:, None] == ids[None]).all(-1).float()
    target = same / same.sum(-1, keepdim=True)
    both = logits_per_text.log_softmax(-1) + logits_per_text.T.log_softmax(-1)
    return -(target * both).sum(-1).mean()


def preference_loss(first: Tensor, second: Tensor, level: Tensor, second_level: Tensor) -> Tensor:
    """Bradley-Terry: the less degraded of two pictures of one caption is preferred.

    first, second: (B,) scaled cosines; level, second_level: (B,) degradation of the two pictures.
    """
    preferred = (level < second_level).float()
    return functional.binary_cross_entropy_with_logits(first - second, preferred)


def loss_of_batch(
    model: CLIPModel, images: Tensor, ids: Tensor, preference_weight: float
) -> Tensor:
    """Contrastive loss of images (B, 3, 32, 32) and captions (B, L), plus the weighted preference loss."""
    if not preference_weight:
        return contrastive_loss(model(ids, augment(images) * 2 - 1).logits_per_text, ids)
    first, level = degrade(images)
    second, second_level = degrade(images)
    out = model(ids, first * 2 - 1)
    features = model.get_image_features(pixel_values=second * 2 - 1).pooler_output
    cosine = (functional.normalize(features, dim=-1) * out.text_embeds).sum(-1)
    scaled = cosine * model.logit_scale.exp()
    preference = preference_loss(out.logits_per_text.diagonal(), scaled, level, second_level)
    return contrastive_loss(out.logits_per_text, ids) + preference_weight * preference


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Model, tokenizer and preprocessing, as `mixgrpo/rewards/_clip.py` and transformers load them."""
    size = {"height": SIZE, "width": SIZE}
    processor = CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=list(MEAN), image_std=list(STD)
    )
    for part in (model, tokenizer, processor):
        part.save_pretrained(directory)


def pretrain(component: str, config: PretrainConfig, directory: Path) -> dict[str, float]:
    """Train and save one CLIP; returns its final loss."""
    kind, tokenizer = KINDS[component], clip_tokenizer()
    pictures = for_judges(config.num_pictures)
    ids = token_ids(tokenizer, pictures.captions)
    model = build_clip(tokenizer, patch=kind.patch)

    def loss() -> Tensor:
        rows = torch.randint(len(pictures), (BATCH,))
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        return loss_of_batch(model, pictures.images[rows], ids[rows], kind.preference_weight)

    final = fit(
        model,
        loss,
        name=component,
        num_steps=config.clip_steps,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )
    save_clip(model, tokenizer, directory)
    return {"loss": final}
