"""Rewards that are the cosine of a CLIP's image and text features: HPS, Pick Score and CLIP Score.

What differs between them is the network (`Towers`), how a picture is made to fit it (`Preprocessing`) and the
scale. `load_clip` reads transformers' own layout: CLIPModel, tokenizer and preprocessor_config.json.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from mixgrpo.errors import UserError
from mixgrpo.rewards._checkpoints import Checkpoint, dtype_of

BATCH = 48
"""Images in one forward pass."""
MAX_CACHED_PROMPTS = 4096
BICUBIC = 3
"""PIL's number of the one way of resizing there is here."""
SMALLEST_PUBLISHED = 384
"""Width of the smallest vision transformer that somebody published as a CLIP; below it are those of tests."""
COSINE = "cosine; higher is better"


@dataclass(frozen=True)
class Preprocessing:
    """From pictures in [0, 1] of any size to what the vision model takes."""

    size: tuple[int, int]
    """Height and width of the result."""
    fit: Literal["crop", "squash", "pad"]
    """crop: resize the shorter edge to `edge`, keep the centre; squash: resize to `size` whatever the aspect
    ratio; pad: resize the longer edge to the longer of `size`, zeros around it, before normalising."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    edge: int = 0
    """The shorter edge before cropping; 0: the shorter of `size`."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, *size), bicubic with antialiasing, normalised.

        crop and squash clamp to [0, 1], as PIL does; pad does not: HPS resizes tensors.
        """
        height, width = images.shape[-2:]
        target = self.resized(height, width)
        if target != (height, width):
            images = functional.interpolate(images, size=target, mode="bicubic", antialias=True)
            images = images if self.fit == "pad" else images.clamp(0, 1)
        down, right = self.size[0] - target[0], self.size[1] - target[1]
        top, left = int(down / 2), int(right / 2)
        if down or right:  # a negative border crops
            images = functional.pad(images, (left, right - left, top, down - top))
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture of this height and width before cropping or padding."""
        if self.fit == "squash":
            return self.size
        if self.fit == "pad":
            scale = max(self.size) / max(height, width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        edge, short = self.edge or min(self.size), min(height, width)
        return edge * height // short, edge * width // short


def read_preprocessing(directory: Path) -> Preprocessing:
    """From preprocessor_config.json, as CLIPImageProcessor writes it."""
    data = json.loads((directory / "preprocessor_config.json").read_text())
    if data.get("resample", BICUBIC) != BICUBIC:
        raise ValueError(f"resample={data['resample']}, wanted {BICUBIC}, bicubic")
    resize, crop = data["size"], data.get("crop_size")
    edge = resize.get("shortest_edge") if isinstance(resize, dict) else resize
    final = resize if edge is None else (crop or edge)
    size = (final["height"], final["width"]) if isinstance(final, dict) else (final, final)
    mean, std = tuple(data["image_mean"]), tuple(data["image_std"])
    return Preprocessing(size, "squash" if edge is None else "crop", mean, std, edge or 0)


class Towers(Protocol):
    """The two networks of a CLIP."""

    model: torch.nn.Module
    device: torch.device
    dtype: torch.dtype

    def image(self, pixels: Tensor) -> Tensor:
        """Preprocessed (B, 3, h, w) -> features (B, D)."""

    def text(self, prompts: list[str]) -> Tensor:
        """Prompts, cut off at the context length -> features (B, D)."""


class Tokenize(Protocol):
    """Prompts -> token ids (B, context length)."""

    def __call__(self, prompts: list[str]) -> Tensor: ...


class TransformersTowers:
    """transformers' CLIPModel."""

    def __init__(self, model: CLIPModel, tokenize: Tokenize):
        self.model = model.eval().requires_grad_(False)
        self.tokenize = tokenize
        self.device, self.dtype = model.device, model.dtype

    def image(self, pixels: Tensor) -> Tensor:
        """As `Towers.image`."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def text(self, prompts: list[str]) -> Tensor:
        """As `Towers.text`. What pads comes after the end of the text, and attention looks back only."""
        ids = self.tokenize(prompts).to(self.device)
        return self.model.get_text_features(input_ids=ids).pooler_output


class ClipReward:
    """score = scale * cos(image features, text features), the product in fp32."""

    def __init__(
        self,
        name: str,
        *,
        towers: Towers,
        preprocessing: Preprocessing,
        checkpoint: Checkpoint,
        facts: Mapping[str, str],
        scale: float = 1.0,
    ):
        self.name = name
        self.towers = towers
        self.preprocessing = preprocessing
        self.checkpoint = checkpoint
        self.scale = scale
        self.cache: dict[str, Tensor] = {}
        self._facts = facts

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The networks that have its weights."""
        return [self.towers.model]

    @property
    def facts(self) -> dict[str, str]:
        """What a score file says: version, scale, backend, checkpoint, sha256, dtype."""
        return {
            **self._facts,
            "checkpoint": self.checkpoint.source,
            "sha256": self.checkpoint.sha256,
            "dtype": str(self.towers.dtype).removeprefix("torch."),
        }

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) and B prompts -> (B,). Each different prompt is embedded once."""
        text = self.text_features(prompts)
        image = torch.cat([self.image_features(part) for part in images.split(BATCH)])
        return (self.scale * (image * text).sum(-1)).cpu()

    def image_features(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D) in fp32."""
        pixels = self.preprocessing(images.to(self.towers.device, torch.float32))
        return functional.normalize(self.towers.image(pixels.to(self.towers.dtype)).float(), dim=-1)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (B, D) in fp32.

        Each prompt goes through the network alone: in a batch, what it is batched with changes the last bit, and with
        what is known already that would be another batch after a training has been resumed.
        """
        if len(self.cache) + len(set(prompts) - self.cache.keys()) > MAX_CACHED_PROMPTS:
            self.cache.clear()
        for prompt in dict.fromkeys(prompts):
            if prompt not in self.cache:
                self.cache[prompt] = self._embed(prompt)
        return torch.stack([self.cache[prompt] for prompt in prompts])

    def _embed(self, prompt: str) -> Tensor:
        return functional.normalize(self.towers.text([prompt]).float(), dim=-1).squeeze(0)


def padded(tokenizer: PreTrainedTokenizerBase, length: int) -> Tokenize:
    """Token ids of a transformers tokenizer, cut off or filled up to `length`."""

    def tokenize(prompts: list[str]) -> Tensor:
        return tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids

    return tokenize


def plain(model: CLIPModel) -> float:
    """Scale of a plain cosine."""
    return 1.0


def load_clip(
    name: str,
    directory: Path,
    device: torch.device,
    *,
    version: str,
    dtype: str = "float32",
    processor: Path | None = None,
    source: str | None = None,
    scale: Callable[[CLIPModel], float] = plain,
    scale_name: str = COSINE,
) -> ClipReward:
    """A transformers directory: model, tokenizer and preprocessing.

    processor: the directory of tokenizer and preprocessing, where it is another. source: what `facts` name instead
    of the directory. scale: of the fp32 weights. UserError when a part is missing or damaged.
    """
    number = dtype_of(name, dtype)
    processor = processor or directory
    _check_parts(name, directory, processor)
    try:
        model, info = CLIPModel.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(processor)
        preprocessing = read_preprocessing(processor)
    except Exception as error:
        raise UserError(
            f"reward {name}: {directory} cannot be loaded ({type(error).__name__}: {error}). "
            "It may be truncated: make or download it again."
        ) from None
    _check_fit(name, directory, model, info["missing_keys"], len(tokenizer))
    factor = scale(model)
    weights = sorted(directory.glob("model*.safetensors")) or sorted(directory.glob("*model*.bin"))
    tokenize = padded(tokenizer, model.config.text_config.max_position_embeddings)
    return ClipReward(
        name,
        towers=TransformersTowers(model.to(device, number), tokenize),
        preprocessing=preprocessing,
        checkpoint=Checkpoint(tuple(weights), source or str(directory)),
        facts={"version": version, "scale": scale_name, "backend": "transformers"},
        scale=factor,
    )


def _check_parts(name: str, directory: Path, processor: Path) -> None:
    parts = [directory / "config.json"]
    parts += [processor / f"{part}_config.json" for part in ("tokenizer", "preprocessor")]
    missing = [part.name for part in parts if not part.is_file()]
    if not any((processor / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        missing.append("tokenizer.json")
    if missing:
        where = {str(directory): None, str(processor): None}
        raise UserError(
            f"reward {name}: {' or '.join(where)} lacks {', '.join(missing)}. Wanted a transformers directory "
            "with CLIPModel, tokenizer and image preprocessing; make or download it again."
        )


def _check_fit(
    name: str, directory: Path, model: CLIPModel, missing: Sequence[str], num_tokens: int
) -> None:
    if missing:
        raise UserError(
            f"reward {name}: the weights in {directory} lack {len(missing)} tensors that its config.json asks for "
            f"({', '.join(sorted(missing)[:3])}, ...). They are of another network: download it again."
        )
    vision = model.config.vision_config
    check_vit_h_14(
        name,
        str(directory),
        width=vision.hidden_size,
        layers=vision.num_hidden_layers,
        patch=vision.patch_size,
    )
    if num_tokens != model.config.text_config.vocab_size:
        raise UserError(
            f"reward {name}: the tokenizer in {directory} has {num_tokens} tokens, the model "
            f"{model.config.text_config.vocab_size}. They belong to different models: make or download both again."
        )


def check_vit_h_14(name: str, source: str, *, width: int, layers: int, patch: int) -> None:
    """UserError for a published size other than ViT-H-14, which the reward is; those of tests are smaller."""
    if width >= SMALLEST_PUBLISHED and (width, layers, patch) != (1280, 32, 14):
        raise UserError(
            f"reward {name}: {source} is a vision transformer of {layers} layers, width {width}, patches of {patch} "
            "pixels; wanted ViT-H-14: 32 layers, width 1280, patches of 14. Give this reward's own checkpoint."
        )
