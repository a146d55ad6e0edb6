"""The packages hpsv2 1.2.0 and image-reward 1.5, imported on transformers 5, with or without torchvision.

Both were written for transformers 4 and torchvision. What they lack is put in their place while they are
imported and taken away again; a few methods stay on image-reward's own class. Neither package's files nor
transformers are changed.
"""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import BertTokenizer, modeling_utils, pytorch_utils

from mixgrpo.errors import UserError
from mixgrpo.imports import import_module
from mixgrpo.rewards._blip import VisionSize
from mixgrpo.rewards._modules import modules_in_place
from mixgrpo.rewards._torchvision import torchvision_or_stand_in

MOVED = (
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
)
"""Functions that transformers 5 no longer has in `modeling_utils`; the last two nothing calls in scoring."""


def hpsv2_open_clip() -> ModuleType:
    """`hpsv2.src.open_clip`: the CLIP that HPS was trained with, its configs, preprocessing and tokenizer.

    Its `factory` imports Tk's `turtle` for nothing, and the package lacks the vocabulary file that its
    `tokenizer` reads from its own folder; open_clip_torch has the same file.
    """
    name = "hpsv2.src.open_clip"
    if name in sys.modules:
        return sys.modules[name]
    tokenizer = _folder_of("hpsv2") / "src" / "open_clip" / "tokenizer.py"
    vocabulary = _folder_of("open_clip", "open_clip_torch")
    turtle = ModuleType("turtle")
    turtle.__dict__["forward"] = None
    with torchvision_or_stand_in(), modules_in_place({"turtle": turtle}), _as_before():
        sys.modules[f"{name}.tokenizer"] = _run(f"{name}.tokenizer", tokenizer, vocabulary)
        return import_module(name)


def image_reward_package() -> ModuleType:
    """`ImageReward`, whose `ImageReward.ImageReward` is the model. See `image_reward_model`.

    It imports OpenAI's `clip`, which no registry has under that name, for other scores than ImageReward, and its
    own trainer `ReFL`, which needs `datasets`: empty modules stand in for both.
    """
    if "ImageReward" in sys.modules:
        return sys.modules["ImageReward"]
    _folder_of("ImageReward", "image-reward")
    empty = {name: ModuleType(name) for name in ("clip", "ImageReward.ReFL")}
    with torchvision_or_stand_in(), modules_in_place(empty), _as_before(), _moved_functions():
        package = import_module("ImageReward")
        bert = import_module("ImageReward.models.BLIP.med").BertPreTrainedModel
    bert.init_weights = lambda self: None  # a checkpoint follows; in transformers 5 it needs more
    bert.get_head_mask = lambda self, head_mask, num_layers: [None] * num_layers
    bert.invert_attention_mask = _inverted
    return package


def image_reward_model(
    med_config: Path, tokenizer: BertTokenizer, vision: VisionSize, device: torch.device
) -> nn.Module:
    """The package's model with these parts, its weights yet to be loaded.

    By itself it fetches a tokenizer, and makes a vision model of the size "large", the one that is published.
    """
    image_reward_package()
    blip: Any = import_module("ImageReward.models.BLIP.blip_pretrain")
    transformer = import_module("ImageReward.models.BLIP.vit").VisionTransformer
    before = blip.init_tokenizer, blip.create_vit
    blip.init_tokenizer = lambda: tokenizer
    blip.create_vit = lambda *_: (
        transformer(
            img_size=vision.image,
            patch_size=vision.patch,
            embed_dim=vision.width,
            depth=vision.depth,
            num_heads=vision.heads,
        ),
        vision.width,
    )
    try:
        return import_module("ImageReward.ImageReward").ImageReward(str(med_config), device)
    finally:
        blip.init_tokenizer, blip.create_vit = before


def _folder_of(module: str, package: str | None = None) -> Path:
    """Where an installed package lies, without importing it. UserError when it is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the Python package {package or module} is not installed. It needs a command of its own: "
            "`pip install --no-deps -r requirements-nodeps.lock`; or set the option `backend: native`."
        )
    return Path(spec.submodule_search_locations[0])


def _run(name: str, file: Path, folder: Path) -> ModuleType:
    """The module `name` of `file`, told that it lies in `folder`."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(folder / file.name)
    spec.loader.exec_module(module)
    return module


def _inverted(self: nn.Module, mask: Tensor) -> Tensor:
    """(B, L) of ones and zeros -> (B, 1, 1, L) of 0 and the lowest number there is, to add to scores."""
    dtype = next(self.parameters()).dtype
    return (1 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


@contextmanager
def _moved_functions() -> Iterator[None]:
    """Inside, `MOVED` can be imported from `transformers.modeling_utils`."""
    added = [name for name in MOVED if not hasattr(modeling_utils, name)]
    for name in added:
        setattr(modeling_utils, name, getattr(pytorch_utils, name, None))
    try:
        yield
    finally:
        for name in added:
            delattr(modeling_utils, name)


@contextmanager
def _as_before() -> Iterator[None]:
    """Both packages silence warnings and transformers' log when they are imported: not for everybody."""
    verbosity = transformers.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            transformers.logging.set_verbosity(verbosity)
