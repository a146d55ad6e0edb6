"""Tuned weights as a whole directory in diffusers layout."""

import shutil
from pathlib import Path
from types import ModuleType

import torch

from mixgrpo.config import ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.models import _diffusers as common
from mixgrpo.models import _directory as directory


def export(
    module: ModuleType, config: ModelConfig, weights: Path, folder: Path, *, dtype: torch.dtype
) -> None:
    """Write the transformer with `weights` to `folder`, in `dtype`, and link the other parts of the base model there.

    module: the file of mixgrpo/models/ that the model is of.
    """
    if common.is_lora(weights):
        raise UserError(
            f"{weights} is a LoRA file, which needs no export: `pipe.load_lora_weights({str(weights.parent)!r}, "
            f"weight_name={weights.name!r})` after loading the base model {config.path} with diffusers."
        )
    parts = (*directory.TRAINED, *module.TEXT_PARTS)
    base = directory.find(config, module.FAMILY, parts)
    policy = module.load(config, torch.device("cpu"), dtype=dtype)
    policy.load_weights(weights)
    folder.mkdir(parents=True)
    policy.network.save_pretrained(folder / "transformer", max_shard_size="10GB")
    for part in parts:
        if part != "transformer":
            (folder / part).symlink_to((base / part).resolve(), target_is_directory=True)
    shutil.copy(base / "model_index.json", folder)
