"""CLIP Score with DFN5B's ViT-H-14 at 378 pixels (Fang et al. 2023, "Data Filtering Networks").

    score = cos(image features, text features)

The plain cosine: no factor of 100 or 2.5, no clamp. The picture is squashed to a square, as the model's own
open_clip_config.json says, and the network uses the approximate GELU that the same file names. A directory of
transformers' layout is taken as well, with its own preprocessor_config.json.
"""

from dataclasses import replace
from pathlib import Path

import torch

from mixgrpo.errors import UserError
from mixgrpo.rewards import _open_clip as open_clip
from mixgrpo.rewards._checkpoints import HubFile, download, dtype_of, load_state_dict, locate
from mixgrpo.rewards._clip import (
    COSINE,
    ClipReward,
    TransformersTowers,
    check_vit_h_14,
    load_clip,
)

NAME = "clip_score"
HUB = HubFile(
    "apple/DFN5B-CLIP-ViT-H-14-378",
    "01b771ed0d1395ca5ffdd279897d665ebe00dfd2",
    "open_clip_pytorch_model.bin",
    "c07a17b547d461c60a3cce5062b26bf8545b13de602c4c59d8490361eb716033",
)
WEIGHTS = ("open_clip_model.safetensors", HUB.name)


def load(path: str | None, device: torch.device, *, dtype: str = "float32") -> ClipReward:
    """CLIP Score from `path`: weights of open_clip, their directory, or a directory of transformers; None: the hub."""
    return load_as(NAME, path, device, dtype=dtype)


def load_as(
    name: str, path: str | None, device: torch.device, *, dtype: str = "float32"
) -> ClipReward:
    """The same as the reward `name`. UserError when a part is missing, damaged or of another network."""
    if path is not None and Path(path).is_dir():
        there = [Path(path) / file for file in WEIGHTS if (Path(path) / file).is_file()]
        if there:
            path = str(there[0])
        elif (Path(path) / "config.json").is_file():
            return load_clip(name, Path(path), device, version="weights given by path", dtype=dtype)
        else:
            raise UserError(
                f"reward {name}: {path} lacks config.json of transformers and {' and '.join(WEIGHTS)} of open_clip. "
                f"Wanted a copy of {HUB.repo} or another CLIP: correct `path`, or set it to null."
            )
    number = dtype_of(name, dtype)
    checkpoint = locate(name, path, HUB)
    (file,) = checkpoint.files
    config = replace(HUB, name=open_clip.CONFIG, sha256=None)
    beside = download(name, config) if path is None else file.parent / open_clip.CONFIG
    state = load_state_dict(name, file)
    sizes = open_clip.architecture_of(name, file, state)
    sizes, preprocessing = open_clip.read_config(name, beside, sizes)
    check_vit_h_14(name, str(file), width=sizes.width, layers=sizes.layers, patch=sizes.patch)
    tokenize = open_clip.tokenizer(name, sizes)
    model = open_clip.to_transformers(state, sizes, device=device, dtype=number)
    known = checkpoint.sha256 == HUB.sha256
    return ClipReward(
        name,
        towers=TransformersTowers(model, tokenize),
        preprocessing=preprocessing,
        checkpoint=checkpoint,
        facts={
            "version": "CLIP Score, DFN5B ViT-H-14-378" if known else "weights given by path",
            "scale": COSINE,
            "backend": "transformers",
        },
    )
