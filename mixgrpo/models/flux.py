"""FLUX.1: packing, position ids, embedded guidance, timestep and VAE scaling, as `FluxPipeline` has them.

Latents are packed: (B, N, 4 C) tokens of 2 x 2 latent pixels, N = (H / f / 2)^2 for a VAE of factor f.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.models import _diffusers as common
from mixgrpo.records import Conditioning

PARTS = (
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "scheduler",
)


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

    def __init__(self, network: FluxTransformer2DModel, vae: AutoencoderKL, config: ModelConfig):
        self.network: torch.nn.Module = network
        self.vae = vae
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
        text = cond.tensors["prompt_embeds"]
        return self.network(
            hidden_states=x,
            encoder_hidden_states=text,
            pooled_projections=cond.tensors["pooled_prompt_embeds"],
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

    def save_weights(self, path: Path) -> None:
        """The transformer's weights, or its adapters."""
        common.save_weights(self.network, path)

    def load_weights(self, path: Path) -> None:
        """Take them up again."""
        common.load_weights(self.network, path)


def load(config: ModelConfig, device: torch.device, lora: LoraConfig | None = None) -> FluxPolicy:
    """Transformer (fp32 master weights) and VAE of the diffusers directory `config.path`."""
    path = Path(config.path)
    common.check_directory(path, PARTS, "FLUX.1")
    network = common.load_part(
        path / "transformer",
        lambda part: FluxTransformer2DModel.from_pretrained(part, torch_dtype=torch.float32),
    )
    if lora is not None:
        common.add_lora(network, lora)
    return FluxPolicy(network.to(device), common.load_vae(path).to(device), config)


@torch.no_grad()
def embed(path: Path, texts: list[str], device: torch.device, batch_size: int = 64) -> Conditioning:
    """T5 states (N, S, D) and pooled CLIP states (N, D') of `texts`, as `FluxPipeline.encode_prompt` makes them."""
    common.check_directory(path, PARTS, "FLUX.1")
    clip_tokenizer = AutoTokenizer.from_pretrained(path / "tokenizer")
    t5_tokenizer = AutoTokenizer.from_pretrained(path / "tokenizer_2")
    clip = CLIPTextModel.from_pretrained(path / "text_encoder").to(device).eval()
    t5 = T5EncoderModel.from_pretrained(path / "text_encoder_2").to(device).eval()
    states, pooled = [], []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        states.append(t5(_token_ids(t5_tokenizer, batch, device))[0].float().cpu())
        pooled.append(clip(_token_ids(clip_tokenizer, batch, device)).pooler_output.float().cpu())
    return Conditioning(
        {"prompt_embeds": torch.cat(states), "pooled_prompt_embeds": torch.cat(pooled)}
    )


def _token_ids(tokenizer: AutoTokenizer, texts: list[str], device: torch.device) -> Tensor:
    length = min(tokenizer.model_max_length, 512)
    tokens = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids.to(device)
