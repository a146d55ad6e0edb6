"""SD3.5: true classifier-free guidance, timestep and VAE scaling, as `StableDiffusion3Pipeline` has them.

Latents are (B, C, h, w). Both branches of the guidance go through the network in one batch.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.models import _diffusers as common
from mixgrpo.records import Conditioning

PARTS = (
    *("transformer", "vae", "scheduler"),
    *("text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3"),
)
TIMESTEPS = 1000
T5_LENGTH = 256
"""Tokens of a T5 prompt, the pipeline's default; fewer where the tokenizer has fewer."""


class Sd3Policy:
    """An SD3.5 transformer as a velocity field, with the VAE that decodes its latents."""

    def __init__(self, network: SD3Transformer2DModel, vae: AutoencoderKL, config: ModelConfig):
        self.network: torch.nn.Module = network
        self.vae = vae
        self.guidance = config.guidance
        self.num_evaluations = 0
        side = common.latent_side(vae, config)
        self.shape = (network.config.in_channels, side, side)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, h, w)."""
        return self.shape

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """v (B, C, h, w) in fp32: v_empty + guidance (v_prompt - v_empty); at guidance 1 one branch is enough."""
        if self.guidance == 1:
            return self.conditional_velocity(x, sigma, cond)
        self.num_evaluations += len(x)
        both = {
            name: torch.cat([cond.shared[name].expand_as(rows), rows])
            for name, rows in cond.tensors.items()
        }
        sigmas = sigma.to(x).expand(len(x)).repeat(2)
        empty, prompted = self._network(x.repeat(2, 1, 1, 1), sigmas, both).chunk(2)
        return empty + self.guidance * (prompted - empty)

    def conditional_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """v (B, C, h, w) in fp32 of the prompt's branch alone."""
        self.num_evaluations += len(x)
        return self._network(x, sigma.to(x).expand(len(x)), cond.tensors)

    def _network(self, x: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        return self.network(
            hidden_states=x,
            encoder_hidden_states=text["prompt_embeds"],
            pooled_projections=text["pooled_prompt_embeds"],
            timestep=sigmas * TIMESTEPS,
            return_dict=False,
        )[0].float()

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1]."""
        return common.decode(self.vae, latents)

    def save_weights(self, path: Path) -> None:
        """The transformer's weights, or its adapters."""
        common.save_weights(self.network, path)

    def load_weights(self, path: Path) -> None:
        """Take them up again."""
        common.load_weights(self.network, path)


def load(config: ModelConfig, device: torch.device, lora: LoraConfig | None = None) -> Sd3Policy:
    """Transformer (fp32 master weights) and VAE of the diffusers directory `config.path`."""
    path = Path(config.path)
    common.check_directory(path, PARTS, "SD3.5")
    network = common.load_part(
        path / "transformer",
        lambda part: SD3Transformer2DModel.from_pretrained(part, torch_dtype=torch.float32),
    )
    if lora is not None:
        common.add_lora(network, lora)
    return Sd3Policy(network.to(device), common.load_vae(path).to(device), config)


@torch.no_grad()
def embed(path: Path, texts: list[str], device: torch.device, batch_size: int = 64) -> Conditioning:
    """Text states (N, S, D) and pooled states (N, D') by `StableDiffusion3Pipeline.encode_prompt`.

    `shared` has those of the empty prompt, the other branch of the guidance.
    """
    from diffusers import StableDiffusion3Pipeline

    common.check_directory(path, PARTS, "SD3.5")
    pipeline = common.load_part(
        path / "transformer",
        lambda part: StableDiffusion3Pipeline.from_pretrained(
            part.parent, transformer=None, vae=None
        ).to(device),
    )
    length = min(pipeline.tokenizer_3.model_max_length, T5_LENGTH)

    def encoded(batch: list[str]) -> dict[str, Tensor]:
        states, _, pooled, _ = pipeline.encode_prompt(
            batch, None, None, do_classifier_free_guidance=False, max_sequence_length=length
        )
        return {
            "prompt_embeds": states.float().cpu(),
            "pooled_prompt_embeds": pooled.float().cpu(),
        }

    starts = range(0, len(texts), batch_size)
    parts = [encoded(texts[start : start + batch_size]) for start in starts]
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Conditioning(rows, encoded([""]))
