"""ImageReward v1.0 (Xu et al. 2023): a BLIP that sees picture and prompt together, trained on expert rankings.

One number a pair, about mean 0 and standard deviation 1 on the authors' data; higher is better. With backend
`package` the network is that of the authors' package image-reward, with `native` it is made of transformers' BLIP
classes, which needs no other package. Both read the authors' own file and agree.

Files: ImageReward.pt and med_config.json, and BERT's vocabulary, vocab.txt: beside them, or from the hub.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertTokenizer

from mixgrpo.errors import UserError
from mixgrpo.rewards._blip import (
    CHARACTERISTIC,
    MAX_TOKENS,
    PUBLISHED,
    TEXT_SIZES,
    UNUSED,
    ImageRewardNetwork,
    native_network,
    native_weights,
    preprocess,
    vision_size,
)
from mixgrpo.rewards._checkpoints import (
    HubFile,
    check_keys,
    dtype_of,
    load_state_dict,
    locate,
)
from mixgrpo.rewards._packages import image_reward_model

NAME = "image_reward"
VERSION = "ImageReward v1.0"
SCALE = "mean 0, standard deviation 1 on the authors' data; higher is better"
REPO, REVISION = "zai-org/ImageReward", "5736be03b2652728fb87788c9797b0570450ab72"
CHECKPOINT = HubFile(REPO, REVISION, "ImageReward.pt")
MED_CONFIG = HubFile(REPO, REVISION, "med_config.json")
VOCABULARY = HubFile(
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    "vocab.txt",
    sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
BACKENDS = ("package", "native")
BATCH = 48
"""Images in one forward pass."""


class PackageNetwork(nn.Module):
    """The authors' network, called as the native one is."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.mlp: nn.Module = model.mlp
        self.mlp.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """As `ImageRewardNetwork.forward`: a score a pair, not of all pictures with all prompts."""
        return self.model.score_gard(tokens, mask, pixels).squeeze(-1)


class ImageReward:
    """Scores pictures with their prompts, in pairs."""

    name = NAME

    def __init__(
        self,
        network: PackageNetwork | ImageRewardNetwork,
        tokenizer: BertTokenizer,
        *,
        size: int,
        device: torch.device,
        dtype: torch.dtype,
        facts: Callable[[], dict[str, str]],
    ):
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.network.mlp.float()
        self.tokenizer = tokenizer
        self.size = size
        self.device = device
        self.dtype = dtype
        self._facts = facts

    @property
    def modules(self) -> list[nn.Module]:
        """The networks that have its weights."""
        return [self.network]

    @property
    def facts(self) -> dict[str, str]:
        """What a score file says of it. The first time it reads all of the checkpoint, for its checksum."""
        return self._facts()

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) and B prompts -> (B,). A prompt's tokens after the first 35 are not read."""
        text = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self.device)
        parts = zip(
            images.split(BATCH),
            text.input_ids.split(BATCH),
            text.attention_mask.split(BATCH),
            strict=True,
        )
        return torch.cat([self._score(*part) for part in parts]).cpu()

    def _score(self, images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        pixels = preprocess(images.to(self.device, torch.float32), self.size)
        return self.network(pixels.to(self.dtype), tokens, mask)


def load(
    path: str | None, device: torch.device, *, backend: str = "package", dtype: str = "float32"
) -> ImageReward:
    """The authors' checkpoint on the hub, or at `path`: ImageReward.pt or the directory that holds it.

    backend: "package" or "native". dtype: of the weights; the last layers are always fp32. UserError for another
    option, a missing or damaged file, or one of another network.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"reward {NAME}: option backend is {backend!r}, wanted one of {', '.join(BACKENDS)}."
        )
    number = dtype_of(NAME, dtype)
    checkpoint = locate(NAME, path, CHECKPOINT)
    (file,) = checkpoint.files
    beside = None if path is None else file.parent
    (med_config,) = locate(NAME, None if beside is None else str(beside), MED_CONFIG).files
    sizes = read_med_config(med_config)
    tokenizer = load_tokenizer(beside)
    weights = load_state_dict(NAME, file)
    check_weights(file, weights, sizes, tokenizer)
    vision = vision_size(weights)
    device = torch.device(device)
    network: PackageNetwork | ImageRewardNetwork
    if backend == "package":
        model = image_reward_model(med_config, tokenizer, vision, device)
        fill(model, file, weights)
        network = PackageNetwork(model)
    else:
        network = native_network(vision, sizes, device)
        fill(network, file, native_weights(weights))
    return ImageReward(
        network,
        tokenizer,
        size=vision.image,
        device=device,
        dtype=number,
        facts=lambda: {
            "version": VERSION if vision == PUBLISHED else f"not {VERSION}: another size",
            "checkpoint": checkpoint.source,
            "sha256": checkpoint.sha256,
            "scale": SCALE,
            "backend": backend,
            "dtype": dtype,
        },
    )


def load_tokenizer(directory: Path | None) -> BertTokenizer:
    """BERT's, with the two tokens more that BLIP adds. `directory`: where vocab.txt may lie; else from the hub."""
    file = None if directory is None else directory / VOCABULARY.name
    if file is None or not file.is_file():
        (file,) = locate(NAME, None, VOCABULARY).files
    tokenizer = BertTokenizer(vocab=str(file), do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    tokenizer.enc_token_id = tokenizer.convert_tokens_to_ids("[ENC]")
    return tokenizer


def read_med_config(file: Path) -> dict[str, Any]:
    """Sizes of the text model. UserError when they are not all there."""
    try:
        sizes = json.loads(file.read_text())
        missing = sorted(set(TEXT_SIZES) - sizes.keys())
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"reward {NAME}: {file} is no JSON object ({error}). Fetch it again: {MED_CONFIG.command}."
        ) from None
    if missing:
        raise UserError(
            f"reward {NAME}: {file} lacks {', '.join(missing)}. Fetch it again: {MED_CONFIG.command}."
        )
    return sizes


def check_weights(
    file: Path, weights: Mapping[str, Tensor], sizes: Mapping[str, Any], tokenizer: BertTokenizer
) -> None:
    """UserError when the weights are not ImageReward's, or of other sizes than med_config.json and vocab.txt say."""
    if not set(CHARACTERISTIC) <= weights.keys():
        check_keys(NAME, file, list(weights), CHARACTERISTIC)
    vocabulary, width = weights[CHARACTERISTIC[0]].shape
    if (vocabulary, width) != (sizes["vocab_size"], sizes["hidden_size"]):
        raise UserError(
            f"reward {NAME}: {file} knows {vocabulary} tokens of {width} features, med_config.json says "
            f"{sizes['vocab_size']} of {sizes['hidden_size']}. They belong to different models: "
            f"fetch both again: {CHECKPOINT.command}, {MED_CONFIG.command}."
        )
    if vocabulary != len(tokenizer):
        raise UserError(
            f"reward {NAME}: {file} knows {vocabulary} tokens, vocab.txt {len(tokenizer)} with BLIP's two. "
            f"They belong to different models: delete the vocab.txt beside it, or fetch it: {VOCABULARY.command}."
        )


def fill(network: nn.Module, file: Path, weights: Mapping[str, Tensor]) -> None:
    """Loads the weights. UserError when some that scores depend on are missing or of another shape.

    Others that the file may hold are left out, as by the authors.
    """
    wanted = [key for key in network.state_dict() if not key.startswith(UNUSED)]
    used = {key: weights[key] for key in wanted if key in weights}
    check_keys(NAME, file, list(used), wanted)
    try:
        network.load_state_dict(used, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(
            f"reward {NAME}: {file} is not of the sizes in med_config.json ({reason}). They belong to different "
            f"models: fetch both again: {CHECKPOINT.command}, {MED_CONFIG.command}."
        ) from None
