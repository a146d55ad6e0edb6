"""Base models behind one protocol, a file each: the name in the config is the file's name.

With rewards/ and tiny/ the only place that imports diffusers, transformers or peft. May import
algorithm, records, config, errors; never rewards.
"""

from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.imports import import_module
from mixgrpo.records import Conditioning


class Policy(Protocol):
    """A flow-matching model in the clock of the algorithm: sigma in [0, 1], 1 is noise."""

    network: torch.nn.Module
    """What is trained; called only by the velocities."""
    num_evaluations: int
    """Images this policy's network has been evaluated on: NFE summed over images."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one image's latents as the algorithm sees them."""

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """v = dx / dsigma (B, ...) in fp32 at samples x (B, ...) and noise level sigma, () or (B,).

        Guided: what sampling follows.
        """

    def conditional_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """The same without classifier-free guidance: what the flow-matching error of Flow-DPO is about."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of latents (B, ...)."""

    def save_weights(self, path: Path) -> None:
        """Write what training changed, for plain diffusers: the transformer's weights, or a LoRA file."""

    def load_weights(self, path: Path) -> None:
        """Take up a `model.safetensors` that `save_weights` wrote."""


def module_of(name: str) -> ModuleType:
    """`mixgrpo/models/{name}.py`. UserError lists the files there are."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    if name not in names:
        raise UserError(
            f"model {name!r} is no file of mixgrpo/models/. There are: {', '.join(names)}."
        )
    return import_module(f"mixgrpo.models.{name}")


def load_policy(
    config: ModelConfig, device: torch.device, *, lora: LoraConfig | None = None
) -> Policy:
    """The base model that `config` names, on `device`, network in training-ready fp32.

    lora: adapters to train in place of all weights; until they are trained, they change nothing.
    """
    return module_of(config.name).load(config, device, lora)


def embed_prompts(name: str, path: Path, texts: list[str], device: torch.device) -> Conditioning:
    """Text embeddings of `texts` (N) by the text encoders of the model directory `path`."""
    return module_of(name).embed(path, texts, device)
