"""Base models of a published shape with random weights: what they cost is what the trained ones cost.

An outline is a directory in diffusers layout without weights: `transformer/config.json`, `vae/config.json`, and
`text.json`, {"tokens": length of a prompt's embedding}.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixgrpo.config import ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.models import _directory as directory
from mixgrpo.records import Conditioning

BASE = "random weights"
"""In the place of a base model's identity."""


def find_outline(config: ModelConfig) -> Path:
    """The directory that `config` names. UserError when it is none."""
    path = Path(config.path)
    wanted = [path / "transformer/config.json", path / "vae/config.json", path / "text.json"]
    if missing := [str(file) for file in wanted if not file.is_file()]:
        raise UserError(
            f"model {config.name}: {path} is no outline of a model, it lacks {', '.join(missing)}. Those that there "
            "are stand in config/outlines/; correct model.path, and run from the repository root."
        )
    return path


def build(kind: type[Any], part: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """A diffusers model of the config in `part`, its weights drawn on `device`: the same in every run on it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device), default_dtype(dtype):
        torch.manual_seed(0)
        model = kind.from_config(directory.read_config(part / "config.json"))
    return torch.nn.Module.to(
        model, device, dtype
    )  # diffusers' own warns of dtypes it has no say in


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New parameters are of `dtype`, so that large ones are never there in fp32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_encoder(config: ModelConfig) -> Callable[[list[str]], Conditioning]:
    """Embeddings of the model's real shape, a function of the text: states (N, S, D) and pooled states (N, D')."""
    path = find_outline(config)
    sizes = directory.read_config(path / "transformer" / "config.json")
    tokens = int(directory.read_config(path / "text.json")["tokens"])

    def encode(texts: list[str]) -> Conditioning:
        return Conditioning(
            {
                "prompt_embeds": _drawn(texts, (tokens, sizes["joint_attention_dim"])),
                "pooled_prompt_embeds": _drawn(texts, (sizes["pooled_projection_dim"],)),
            }
        )

    return encode


def _drawn(texts: list[str], shape: tuple[int, ...]) -> Tensor:
    generators = (torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])
