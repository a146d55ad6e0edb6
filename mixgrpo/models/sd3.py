"""SD3.5: true classifier-free guidance, timestep and VAE scaling, as `StableDiffusion3Pipeline` has them.

Latents are (B, C, h, w). Both branches of the guidance go through the network in one batch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.models import Outline
from mixgrpo.models import _diffusers as common
from mixgrpo.models import _directory as directory
from mixgrpo.models._outline import outline as outline_of
from mixgrpo.records import Conditioning

FAMILY = directory.Family(
    name="SD3.5",
    pipeline="StableDiffusion3Pipeline",
    transformer="SD3Transformer2DModel",
    hub="stabilityai/stable-diffusion-3.5-medium",
)
TEXT_PARTS = (
    *("text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"),
)
TIMESTEPS = 1000
T5_LENGTH = 256
"""Tokens of a T5 prompt, the pipeline's default; fewer where the tokenizer has fewer."""


class Sd3Policy:
    """An SD3.5 transformer as a velocity field, with the VAE that decodes its latents."""

    def __init__(
        self,
        network: SD3Transformer2DModel,
        vae: AutoencoderKL,
        config: ModelConfig,
        *,
        base: str = "",
    ):
        self.network: torch.nn.Module = network
        self.vae = vae
        self.base = base
        self.guidance = config.guidance
        self.num_evaluations = 0
        side = common.latent_side(vae, config)
        refuse_too_large(network, side, config)
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
            encoder_hidden_states=text["prompt_embeds"].to(x),
            pooled_projections=text["pooled_prompt_embeds"].to(x),
            timestep=sigmas * TIMESTEPS,
            return_dict=False,
        )[0].float()

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1]."""
        return common.decode(self.vae, latents)

    def save_weights(self, path: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """The transformer's weights, or its adapters."""
        common.save_weights(self.network, path, base=self.base, state=state)

    def load_weights(self, path: Path) -> None:
        """Take them up again."""
        common.load_weights(self.network, path, base=self.base)


def refuse_too_large(network: SD3Transformer2DModel, side: int, config: ModelConfig) -> None:
    """UserError when latents of `side` have more tokens than the network has positions."""
    patch, most = network.config.patch_size, network.config.pos_embed_max_size
    if side // patch > most:
        limit = config.resolution * most * patch // side
        raise UserError(
            f"model.resolution={config.resolution} is more than the positions of {config.path} reach: at most {limit}."
        )


def load(
    config: ModelConfig,
    device: torch.device,
    lora: LoraConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    weights: bool = True,
) -> Sd3Policy:
    """Transformer and VAE of the diffusers directory that `config` names. dtype: of frozen weights.

    weights: of the transformer, which without them is on the meta device.
    """
    path = directory.find(config, FAMILY, directory.TRAINED)
    part = path / "transformer"
    network = (
        common.load_network(SD3Transformer2DModel, part, dtype)
        if weights
        else common.hollow_network(SD3Transformer2DModel, part, dtype)
    )
    if lora is not None:
        common.add_lora(network, lora)
    return Sd3Policy(
        network.to(device) if weights else network,
        common.load_vae(path).to(device),
        config,
        base=directory.identity(path),
    )


def outline(config: ModelConfig, lora: LoraConfig | None = None) -> Outline:
    """The model without its weights."""
    return outline_of(config, FAMILY, lora)


def text_encoder(config: ModelConfig, device: torch.device) -> Callable[[list[str]], Conditioning]:
    """Gives text states (N, S, D) and pooled states (N, D') of N texts, by `StableDiffusion3Pipeline.encode_prompt`.

    On the CPU, in the precision that `config` has for text. `shared` has those of the empty prompt, the other
    branch of the guidance.
    """
    path = directory.find(config, FAMILY, TEXT_PARTS)
    dtype = common.PRECISIONS[config.text_precision]
    pipeline = common.load_part(
        path / "text_encoder",
        lambda part: StableDiffusion3Pipeline.from_pretrained(
            part.parent, transformer=None, vae=None, torch_dtype=dtype, local_files_only=True
        ).to(device),
    )
    length = min(pipeline.tokenizer_3.model_max_length, T5_LENGTH)

    @torch.no_grad()
    def encoded(batch: list[str]) -> dict[str, Tensor]:
        states, _, pooled, _ = pipeline.encode_prompt(
            batch, None, None, do_classifier_free_guidance=False, max_sequence_length=length
        )
        return {"prompt_embeds": states.cpu(), "pooled_prompt_embeds": pooled.cpu()}

    empty = encoded([""])

    def encode(texts: list[str]) -> Conditioning:
        parts = [encoded(batch) for batch in common.batches_of(texts, length)]
        return Conditioning(
            {name: torch.cat([part[name] for part in parts]) for name in empty}, empty
        )

    return encode
