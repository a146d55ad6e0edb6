"""A small network with random weights, saved as DFN5B is: open_clip_pytorch_model.bin and its config."""

import json
from pathlib import Path

import torch

from tests.rewards.small_hps_v2_1 import open_clip_state

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CONFIG = {
    "model_cfg": {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 70,
            "layers": 2,
            "width": 128,
            "head_width": 64,
            "patch_size": 14,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}


def make_clip_score(directory: Path) -> str:
    """The directory of weights and config."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(open_clip_state(grid=5), directory / "open_clip_pytorch_model.bin")
    (directory / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return str(directory)
