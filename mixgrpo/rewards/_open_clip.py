"""CLIP checkpoints of open_clip, run by transformers' CLIPModel: the same network under other names.

The architecture is read off the shapes of the tensors. What shapes do not show, the width of an attention head and
the kind of GELU, is as in open_clip's own table of models, or as open_clip_config.json says. Nothing of open_clip is
run but its tokenizer, a single file: the package itself needs torchvision and timm.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from mixgrpo.errors import UserError
from mixgrpo.rewards._checkpoints import check_keys
from mixgrpo.rewards._clip import Preprocessing, Tokenize

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
"""Width of an attention head by the width of the vision transformer, where it is not 64."""
CONFIG = "open_clip_config.json"
FITS = {"squash": "squash", "shortest": "crop"}
"""`Preprocessing.fit` of each resize_mode that is known here."""

RENAMED = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
TRANSPOSED = ("visual.proj", "text_projection")
IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = re.compile(r"(visual\.|)transformer\.resblocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a CLIP of two transformers."""

    embed: int
    image_size: int
    patch: int
    width: int
    layers: int
    heads: int
    mlp: int
    context: int
    vocabulary: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp: int
    quick_gelu: bool = False


def architecture_of(reward: str, file: Path, state: Mapping[str, Tensor]) -> Architecture:
    """Off names and shapes. UserError when the tensors are not exactly those of a CLIP of open_clip."""
    found = [match for match in map(BLOCK.fullmatch, state) if match]
    layers, text_layers = (
        1 + max((int(m[2]) for m in found if m[1] == tower), default=0) for tower in ("visual.", "")
    )
    check_keys(reward, file, [n for n in state if n != "attn_mask"], names(layers, text_layers))
    width, _, patch, _ = state["visual.conv1.weight"].shape
    num_patches = len(state["visual.positional_embedding"]) - 1
    context, text_width = state["positional_embedding"].shape
    return Architecture(
        embed=state["visual.proj"].shape[1],
        image_size=patch * round(num_patches**0.5),
        patch=patch,
        width=width,
        layers=layers,
        heads=width // HEAD_WIDTHS.get(width, 64),
        mlp=len(state["visual.transformer.resblocks.0.mlp.c_fc.bias"]),
        context=context,
        vocabulary=len(state["token_embedding.weight"]),
        text_width=text_width,
        text_layers=text_layers,
        text_heads=text_width // 64,
        text_mlp=len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
    )


def names(layers: int, text_layers: int) -> list[str]:
    """Of every tensor of such a checkpoint."""
    kinds = [f"{part}.{kind}" for part in IN_BLOCK for kind in ("weight", "bias")]
    kinds += ["attn.in_proj_weight", "attn.in_proj_bias"]
    towers = (("visual.", layers), ("", text_layers))
    blocks = [
        f"{tower}transformer.resblocks.{i}.{kind}"
        for tower, count in towers
        for i in range(count)
        for kind in kinds
    ]
    return [*RENAMED, *blocks]


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under CLIPModel's names."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in RENAMED:
            result[RENAMED[name]] = tensor.T if name in TRANSPOSED else tensor
        elif match := BLOCK.fullmatch(name):
            tower = "vision_model" if match[1] else "text_model"
            block = f"{tower}.encoder.layers.{match[2]}."
            part, _, kind = match[3].rpartition(".")
            if part in IN_BLOCK:
                result[f"{block}{IN_BLOCK[part]}.{kind}"] = tensor
            else:  # query, key and value in one: attn.in_proj_weight, attn.in_proj_bias
                kind = match[3].removeprefix("attn.in_proj_")
                for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
                    result[f"{block}self_attn.{letter}_proj.{kind}"] = rows
    return result


def to_transformers(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> CLIPModel:
    """CLIPModel with exactly these weights."""
    with torch.device("meta"):
        model = CLIPModel(_config(architecture)).to(dtype)
    model.to_empty(device=device)
    for tower in (model.vision_model, model.text_model):
        positions = tower.embeddings.position_ids
        positions.copy_(torch.arange(positions.shape[1])[None])
    model.load_state_dict(renamed(state))
    return model


def _config(a: Architecture) -> CLIPConfig:
    activation = "quick_gelu" if a.quick_gelu else "gelu"
    return CLIPConfig(
        projection_dim=a.embed,
        vision_config={
            "hidden_size": a.width,
            "intermediate_size": a.mlp,
            "num_hidden_layers": a.layers,
            "num_attention_heads": a.heads,
            "patch_size": a.patch,
            "image_size": a.image_size,
            "hidden_act": activation,
        },
        text_config={
            "hidden_size": a.text_width,
            "intermediate_size": a.text_mlp,
            "num_hidden_layers": a.text_layers,
            "num_attention_heads": a.text_heads,
            "max_position_embeddings": a.context,
            "vocab_size": a.vocabulary,
            "hidden_act": activation,
            "bos_token_id": a.vocabulary - 2,
            "eos_token_id": a.vocabulary - 1,
            "pad_token_id": 0,
        },
    )


def read_config(
    reward: str, file: Path, architecture: Architecture
) -> tuple[Architecture, Preprocessing]:
    """What shapes do not show, and the preprocessing, from open_clip_config.json. UserError when it does not fit."""
    try:
        data = json.loads(file.read_text())
        model, pictures = data["model_cfg"], data.get("preprocess_cfg", {})
        vision, text = model["vision_cfg"], model["text_cfg"]
        said = (model["embed_dim"], vision["width"], vision["layers"], vision["image_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"reward {reward}: {file} cannot be read ({type(error).__name__}: {error}). Wanted the "
            "open_clip_config.json that is beside the weights on the hub: download it into their directory."
        ) from None
    a = architecture
    if said != (a.embed, a.width, a.layers, a.image_size):
        raise UserError(
            f"reward {reward}: {file} says embed_dim, width, layers and image_size are {said}, the weights beside it "
            f"have {(a.embed, a.width, a.layers, a.image_size)}. Download both again from one repository."
        )
    mode, way = pictures.get("resize_mode", "shortest"), pictures.get("interpolation", "bicubic")
    if mode not in FITS or way != "bicubic":
        raise UserError(
            f"reward {reward}: {file} has resize_mode {mode!r} and interpolation {way!r}, wanted one of "
            f"{', '.join(FITS)} and 'bicubic'. Use another CLIP."
        )
    return replace(
        a,
        heads=a.width // vision.get("head_width", 64),
        text_heads=text.get("heads", 8),
        quick_gelu=bool(model.get("quick_gelu", False)),
    ), Preprocessing(
        (a.image_size, a.image_size),
        "crop" if mode == "shortest" else "squash",
        tuple(pictures.get("mean", MEAN)),
        tuple(pictures.get("std", STD)),
    )


def tokenizer(reward: str, architecture: Architecture) -> Tokenize:
    """open_clip's, cutting off at the context length. UserError when its vocabulary is not the checkpoint's."""
    own = _tokenizer_module().SimpleTokenizer(context_length=architecture.context)
    if own.vocab_size != architecture.vocabulary:
        raise UserError(
            f"reward {reward}: the checkpoint has {architecture.vocabulary} tokens, open_clip's tokenizer "
            f"{own.vocab_size}. It was trained with another tokenizer, which is not supported."
        )
    return own


@cache
def _tokenizer_module() -> ModuleType:
    """open_clip/tokenizer.py alone, without the package around it."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "the Python package open_clip_torch, whose tokenizer is needed, is not installed. It needs a command of "
            "its own: `pip install --no-deps -r requirements-nodeps.lock`."
        )
    file = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("mixgrpo_open_clip_tokenizer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
