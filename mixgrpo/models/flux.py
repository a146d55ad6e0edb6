"""FLUX.1: packing, position ids, embedded guidance, timestep and VAE scaling, as `FluxPipeline` has them.

Latents are packed: (B, N, 4 C) tokens of 2 x 2 latent pixels, N = (H / f / 2)^2 for a VAE of factor f.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.models import Outline
from mixgrpo.models import _diffusers as common
from mixgrpo.models import _directory as directory
from mixgrpo.models._outline import outline as outline_of
from mixgrpo.records import Conditioning

FAMILY = directory.Family(
    name="FLUX.1",
    pipeline="FluxPipeline",
    transformer="FluxTransformer2DModel",
    hub="black-forest-labs/FLUX.1-dev",
)
TEXT_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
T5_LENGTH = 512
"""Tokens of a T5 prompt, the pipeline's default; fewer where the tokenizer has fewer."""


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w / 4, 4 C): each token is a 2 x 2 patch."""
    b, c, h, w = latents.shape
    patches = latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(b, h * w // 4, c * 4)


def unpack(tokens: Tensor, side: int) -> Tensor:
    """(B, N, 4 C) -> (B, C, side, side), the inverse of `pack` for square latents."""
    b, _, d = tokens.shape
    patches = tokens.view(b, side // 2, side // 2, d // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(b, d // 4, side, side)


def image_ids(side: int, device: torch.device) -> Tensor:
    """(N, 3) rotary positions (0, row, column) of the tokens of a square latent of `side` pixels."""
    rows, columns = torch.meshgrid(torch.arange(side // 2), torch.arange(side // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], -1)
    return ids.reshape(-1, 3).to(device, torch.float32)


class FluxPolicy:
    """A FLUX transformer as a velocity field, with the VAE that decodes its latents."""

    def __init__(
        self,
        network: FluxTransformer2DModel,
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
        self.side = common.latent_side(vae, config)
        self.image_ids = image_ids(self.side, vae.device)
        self.num_channels = network.config.in_channels

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(N, 4 C)."""
        return ((self.side // 2) ** 2, self.num_channels)

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """v (B, N, 4 C) in fp32. The network takes sigma itself as timestep (it multiplies by 1000)."""
        self.num_evaluations += len(x)
        text = cond.tensors["prompt_embeds"].to(x)
        return self.network(
            hidden_states=x,
            encoder_hidden_states=text,
            pooled_projections=cond.tensors["pooled_prompt_embeds"].to(x),
            timestep=sigma.to(x).expand(len(x)),
            img_ids=self.image_ids,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            guidance=torch.full((len(x),), self.guidance, device=x.device),
            return_dict=False,
        )[0].float()

    def conditional_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """The same: the guidance is embedded, there is no second branch."""
        return self.velocity(x, sigma, cond)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1]."""
        return common.decode(self.vae, unpack(latents, self.side))

    def save_weights(self, path: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """The transformer's weights, or its adapters."""
        common.save_weights(self.network, path, base=self.base, state=state)

    def load_weights(self, path: Path) -> None:
        """Take them up again."""
        common.load_weights(self.network, path, base=self.base)


def load(
    config: ModelConfig,
    device: torch.device,
    lora: LoraConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    weights: bool = True,
) -> FluxPolicy:
    """Transformer and VAE of the diffusers directory that `config` names. dtype: of frozen weights.

    weights: of the transformer, which without them is on the meta device.
    """
    path = directory.find(config, FAMILY, directory.TRAINED)
    refuse_other_flux(path)
    part = path / "transformer"
    network = (
        common.load_network(FluxTransformer2DModel, part, dtype)
        if weights
        else common.hollow_network(FluxTransformer2DModel, part, dtype)
    )
    if lora is not None:
        common.add_lora(network, lora)
    return FluxPolicy(
        network.to(device) if weights else network,
        common.load_vae(path).to(device),
        config,
        base=directory.identity(path),
    )


def refuse_other_flux(path: Path) -> None:
    """UserError for a FLUX.1 that is no text-to-image model with embedded guidance, such as schnell or Fill."""
    config = directory.read_config(path / "transformer" / "config.json")
    channels = 4 * directory.read_config(path / "vae" / "config.json").get("latent_channels", 0)
    if not config.get("guidance_embeds"):
        raise UserError(
            f"model directory {path}: its transformer has no embedded guidance (guidance_embeds), as FLUX.1-schnell "
            f"has none. Wanted {FAMILY.hub} or a model tuned from it."
        )
    if config.get("in_channels") != channels:
        raise UserError(
            f"model directory {path}: its transformer takes {config.get('in_channels')} channels, the packed latents "
            f"of its VAE have {channels}: it is conditioned on a picture, as FLUX.1-Fill is. Wanted {FAMILY.hub} or "
            "a model tuned from it."
        )


def outline(config: ModelConfig, lora: LoraConfig | None = None) -> Outline:
    """The model without its weights."""
    return outline_of(config, FAMILY, lora)


def text_encoder(config: ModelConfig, device: torch.device) -> Callable[[list[str]], Conditioning]:
    """Gives T5 states (N, S, D) and pooled CLIP states (N, D') of N texts, by `FluxPipeline.encode_prompt`.

    On the CPU, in the precision that `config` has for text.
    """
    path = directory.find(config, FAMILY, TEXT_PARTS)
    dtype = common.PRECISIONS[config.text_precision]
    pipeline = common.load_part(
        path / "text_encoder",
        lambda part: FluxPipeline.from_pretrained(
            part.parent, transformer=None, vae=None, torch_dtype=dtype, local_files_only=True
        ).to(device),
    )
    length = min(pipeline.tokenizer_2.model_max_length, T5_LENGTH)

    @torch.no_grad()
    def encode(texts: list[str]) -> Conditioning:
        states, pooled = [], []
        for batch in common.batches_of(texts, length):
            of_t5, of_clip, _ = pipeline.encode_prompt(batch, max_sequence_length=length)
            states.append(of_t5.cpu())
            pooled.append(of_clip.cpu())
        return Conditioning(
            {"prompt_embeds": torch.cat(states), "pooled_prompt_embeds": torch.cat(pooled)}
        )

    return encode
