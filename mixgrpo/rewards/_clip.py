"""Rewards that are the cosine of a CLIP's image and text features: HPS, Pick Score and CLIP Score.

The directory is transformers' own layout: CLIPModel, tokenizer and preprocessor_config.json.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from mixgrpo.errors import UserError

BATCH = 48
"""Images in one forward pass."""
MAX_CACHED_PROMPTS = 4096
BICUBIC = 3
"""PIL's number of the one way of resizing there is here."""


@dataclass(frozen=True)
class Preprocessing:
    """From pictures in [0, 1] of any size to what the vision model takes."""

    size: tuple[int, int]
    """Height and width of the result."""
    shortest_edge: int | None
    """Resize this edge and crop the centre; None: resize to `size`, whatever the aspect ratio."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, *size), bicubic with antialiasing, normalised."""
        height, width = images.shape[-2:]
        target = self.size
        if self.shortest_edge is not None:
            scale = self.shortest_edge / min(height, width)
            target = (max(self.size[0], int(height * scale)), max(self.size[1], int(width * scale)))
        if target != (height, width):
            resized = functional.interpolate(images, size=target, mode="bicubic", antialias=True)
            images = resized.clamp(0, 1)
        top, left = (target[0] - self.size[0]) // 2, (target[1] - self.size[1]) // 2
        images = images[..., top : top + self.size[0], left : left + self.size[1]]
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std


def read_preprocessing(directory: Path) -> Preprocessing:
    """From preprocessor_config.json, as CLIPImageProcessor writes it."""
    data = json.loads((directory / "preprocessor_config.json").read_text())
    if data.get("resample", BICUBIC) != BICUBIC:
        raise ValueError(f"resample={data['resample']}, wanted {BICUBIC}, bicubic")
    resize, crop = data["size"], data.get("crop_size")
    edge = resize.get("shortest_edge") if isinstance(resize, dict) else resize
    final = resize if edge is None else (crop or edge)
    size = (final["height"], final["width"]) if isinstance(final, dict) else (final, final)
    return Preprocessing(size, edge, tuple(data["image_mean"]), tuple(data["image_std"]))


class ClipReward:
    """score = scale * cos(image features, text features), the product in fp32."""

    def __init__(
        self,
        name: str,
        *,
        model: CLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: Preprocessing,
        scale: float = 1.0,
    ):
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.scale = scale
        self.max_length = model.config.text_config.max_position_embeddings
        self.cache: dict[str, Tensor] = {}

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) and B prompts -> (B,). Each different prompt is embedded once."""
        text = self.text_features(prompts)
        image = torch.cat([self.image_features(part) for part in images.split(BATCH)])
        return (self.scale * (image * text).sum(-1)).cpu()

    def image_features(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D) in fp32."""
        pixels = self.preprocessing(images.to(self.model.device, torch.float32))
        out = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype))
        return functional.normalize(out.pooler_output.float(), dim=-1)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (B, D) in fp32."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.cache]
        if len(self.cache) + len(new) > MAX_CACHED_PROMPTS:
            self.cache.clear()
            new = list(dict.fromkeys(prompts))
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            self.cache |= zip(part, self._embed(part), strict=True)
        return torch.stack([self.cache[prompt] for prompt in prompts])

    def _embed(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        out = self.model.get_text_features(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        )
        return functional.normalize(out.pooler_output.float(), dim=-1)


def logit_scale(model: CLIPModel) -> float:
    """exp of the learned log scale."""
    return float(model.logit_scale.exp())


def load_clip(name: str, directory: Path, device: torch.device) -> ClipReward:
    """Model, tokenizer and preprocessing from one directory; UserError when a part is missing or damaged."""
    parts = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
    missing = [part for part in parts if not (directory / part).is_file()]
    if not any((directory / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        missing.append("tokenizer.json")
    if missing:
        raise UserError(
            f"reward {name}: {directory} lacks {', '.join(missing)}. Wanted a transformers directory "
            "with CLIPModel, tokenizer and image preprocessing; make or download it again."
        )
    try:
        model = CLIPModel.from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        preprocessing = read_preprocessing(directory)
    except Exception as error:
        raise UserError(
            f"reward {name}: {directory} cannot be loaded ({type(error).__name__}: {error}). "
            "It may be truncated: make or download it again."
        ) from None
    if len(tokenizer) != model.config.text_config.vocab_size:
        raise UserError(
            f"reward {name}: the tokenizer in {directory} has {len(tokenizer)} tokens, the model "
            f"{model.config.text_config.vocab_size}. They belong to different models: make or download both again."
        )
    return ClipReward(
        name, model=model.to(device), tokenizer=tokenizer, preprocessing=preprocessing
    )
