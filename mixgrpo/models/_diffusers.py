"""What base models in diffusers layout have in common: loading, decoding, LoRA, and files of tuned weights."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.files import write_with

DECODE_BATCH = 48
LORA_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
)
"""The attention's projections, of image and of text tokens."""
PREFIX = "transformer"
"""Of the names in a LoRA file, as `pipe.load_lora_weights` wants them."""

Part = TypeVar("Part")


def check_directory(path: Path, parts: Sequence[str], kind: str) -> None:
    """UserError unless `path` holds every part of a diffusers directory of `kind`, such as "FLUX.1"."""
    if not path.is_dir():
        raise UserError(
            f"model directory {path} does not exist. For preset tiny, `make reproduce` makes it."
        )
    missing = [part for part in parts if not any((path / part).glob("*"))]
    if missing:
        raise UserError(
            f"model directory {path} is not a {kind} diffusers directory: it lacks {', '.join(missing)}."
        )


def load_part(path: Path, load: Callable[[Path], Part]) -> Part:
    """`load(path)`, a part of a model directory; UserError when it is damaged."""
    try:
        return load(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"model directory {path.parent} cannot be loaded: {error}. Delete it and make it again."
        ) from None


def load_vae(path: Path) -> AutoencoderKL:
    """The frozen fp32 autoencoder of a model directory, channels last: decoding takes a third less time so."""
    vae = load_part(
        path / "vae", lambda part: AutoencoderKL.from_pretrained(part, torch_dtype=torch.float32)
    )
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def latent_side(vae: AutoencoderKL, config: ModelConfig) -> int:
    """Height and width of the latents of the configured resolution; UserError when it is no multiple of a token."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if config.resolution % (2 * factor):
        raise UserError(
            f"model.resolution={config.resolution} is not a multiple of {2 * factor}, the size of one token of "
            f"{config.path}. Choose a multiple."
        )
    return config.resolution // factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] of scaled latents (B, C, h, w)."""
    z = (latents / vae.config.scaling_factor + vae.config.shift_factor).to(
        vae.dtype, memory_format=torch.channels_last
    )
    images = [vae.decode(part).sample.float() / 2 + 0.5 for part in z.split(DECODE_BATCH)]
    return torch.cat(images).clamp(0, 1)


def add_lora(network: Any, config: LoraConfig) -> None:
    """Freeze a diffusers transformer and add adapters, which alone train; at first they change nothing.

    Their initial weights are the same in every run and process.
    """
    import peft

    network.requires_grad_(False)
    adapter = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        init_lora_weights="gaussian",
        target_modules=list(LORA_LAYERS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.add_adapter(adapter)


def save_weights(network: Any, path: Path) -> None:
    """What training changed: the adapters, loadable by `pipe.load_lora_weights`, or all weights."""
    if not getattr(network, "peft_config", None):
        weights = network.state_dict()
        write_with(path, lambda temporary: save_file(weights, temporary))
        return
    from diffusers.loaders import SD3LoraLoaderMixin
    from peft.utils import get_peft_model_state_dict

    with tempfile.TemporaryDirectory() as folder:
        SD3LoraLoaderMixin.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(network),
            transformer_lora_adapter_metadata=next(iter(network.peft_config.values())).to_dict(),
            weight_name=path.name,
        )
        content = (Path(folder) / path.name).read_bytes()
    write_with(path, lambda temporary: temporary.write_bytes(content))


def load_weights(network: Any, path: Path) -> None:
    """Take up what `save_weights` wrote; names and shapes must be this network's."""
    try:
        layers = lora_layers(path)
        if layers:
            known = {f"{PREFIX}.{name}" for name, _ in network.named_modules()}
            if strange := sorted(layers - known):  # diffusers would leave them out with a warning
                raise ValueError(f"it has adapters of {strange[0]}, which is no layer here")
            network.load_lora_adapter(str(path.parent), weight_name=path.name, prefix=PREFIX)
        else:
            network.load_state_dict(load_file(path))
    except Exception as error:
        raise UserError(
            f"{path}: not the weights of this transformer ({str(error).splitlines()[0]}). It may be truncated or "
            "come from another base model: delete it and rerun, or name the base model it was trained from."
        ) from None


def lora_layers(path: Path) -> set[str]:
    """Names of the layers that a file of weights has adapters of; empty when it holds all weights."""
    with safe_open(path, framework="pt") as file:
        return {name.split(".lora_")[0] for name in file.keys() if ".lora_" in name}  # noqa: SIM118
