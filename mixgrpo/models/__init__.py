"""Base models behind one protocol, a file each: the name in the config is the file's name.

With rewards/ and tiny/ the only place that imports diffusers, transformers or peft. May import
algorithm, records, config, hub, files, errors; never rewards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.imports import import_module
from mixgrpo.models import _directory
from mixgrpo.models._flops import forward_flops as forward_flops
from mixgrpo.records import Conditioning

TextEncoder = Callable[[list[str]], Conditioning]
"""Embeddings of N texts, a row for each."""


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

    def save_weights(self, path: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write what training changed, for plain diffusers: the transformer's weights, or a LoRA file.

        state: the network's `state_dict`, where it had to be gathered from several processes.
        """

    def load_weights(self, path: Path) -> None:
        """Take up a `model.safetensors` that `save_weights` wrote."""


@dataclass(frozen=True)
class Outline:
    """A base model without its weights: what it would be, loaded."""

    network: torch.nn.Module
    """On the meta device, adapters included: shapes, and which of them are trained."""
    image_tokens: int
    """Tokens of an image of the configured resolution."""


def module_of(name: str) -> ModuleType:
    """`mixgrpo/models/{name}.py`. UserError lists the files there are."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    if name not in names:
        raise UserError(
            f"model {name!r} is no file of mixgrpo/models/. There are: {', '.join(names)}."
        )
    return import_module(f"mixgrpo.models.{name}")


def load_policy(
    config: ModelConfig,
    device: torch.device,
    *,
    lora: LoraConfig | None = None,
    dtype: torch.dtype = torch.float32,
    weights: bool = True,
) -> Policy:
    """The base model that `config` names, on `device`.

    lora: adapters to train in place of all weights; until they are trained, they change nothing. dtype: of the
    network's weights, adapters excepted, which are fp32. Weights that are trained must be fp32. weights: read them;
    else the network is on the meta device, for another process to send them.
    """
    return module_of(config.name).load(config, device, lora, dtype=dtype, weights=weights)


def move_all_but_network(policy: Policy, device: torch.device) -> None:
    """What a policy loaded on the CPU needs on `device`, when its network goes there in parts of its own."""
    for name, value in vars(policy).items():
        if name != "network" and isinstance(value, Tensor | torch.nn.Module):
            setattr(policy, name, value.to(device))


def load_outline(config: ModelConfig, lora: LoraConfig | None = None) -> Outline:
    """The base model that `config` names, without its weights: what they will take is known before they are loaded."""
    outline: Outline = module_of(config.name).outline(config, lora)
    return outline


def load_text_encoder(config: ModelConfig, device: torch.device) -> TextEncoder:
    """The text encoders of the base model that `config` names, on `device`; its embeddings are on the CPU."""
    return module_of(config.name).text_encoder(config, device)


def base_fingerprint(config: ModelConfig) -> str:
    """Changes when the base model that `config` names does."""
    return _directory.fingerprint(config)


def dtype_of(precision: str) -> torch.dtype:
    """Of weights that nothing trains, where the network computes in `precision`, as training.precision names it."""
    return {"no": torch.float32, "bf16": torch.bfloat16}[precision]


def computing(device: torch.device, precision: str) -> torch.autocast:
    """Let networks compute in `precision` inside the block, as they do in training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def export(config: ModelConfig, weights: Path, folder: Path, *, precision: str) -> None:
    """Write the base model with tuned `weights` to `folder`, which plain diffusers loads."""
    from mixgrpo.models._export import export as write  # diffusers stays out of those who plan

    write(module_of(config.name), config, weights, folder, dtype=dtype_of(precision))
