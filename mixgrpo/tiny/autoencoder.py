"""The tiny world's autoencoder: an `AutoencoderKL` from 32 x 32 pictures to 8 x 8 latents."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mixgrpo.tiny.config import PretrainConfig
from mixgrpo.tiny.fit import fit
from mixgrpo.tiny.render import SIZE

LATENT_CHANNELS = 4
KL_WEIGHT = 1.0e-4
ENCODE_BATCH = 128
NUM_MEASURED = 1024


@dataclass(frozen=True)
class Encoded:
    """A trained autoencoder, and the latents (N, 4, 8, 8) of its pictures with mean 0 and deviation 1."""

    vae: AutoencoderKL
    latents: Tensor
    psnr: float
    """Of reconstructions, decibels; mean over some of the pictures."""


def build(channels: tuple[int, ...]) -> AutoencoderKL:
    """One layer a block; no attention, no quantisation convolutions."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def reconstruction_loss(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """|error| + error^2 / 2 + KL_WEIGHT * KL per latent; pixels (B, 3, 32, 32) in [-1, 1]."""
    posterior = vae.encode(pixels).latent_dist
    error = vae.decode(posterior.sample()).sample - pixels
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return error.abs().mean() + 0.5 * error.pow(2).mean() + KL_WEIGHT * kl


def train_autoencoder(images: Tensor, config: PretrainConfig) -> Encoded:
    """Fit to images (N, 3, 32, 32) in [0, 1]; scale and shift of the latents go into the VAE's config."""
    vae = build(config.vae_channels)
    pixels = images * 2 - 1

    def loss() -> Tensor:
        return reconstruction_loss(vae, pixels[torch.randint(len(pixels), (config.vae_batch,))])

    fit(
        vae,
        loss,
        name="autoencoder",
        num_steps=config.vae_steps,
        learning_rate=config.vae_learning_rate,
    )
    z, psnr = encode(vae, images), []
    with torch.no_grad():
        for part in pixels[:: max(1, len(pixels) // NUM_MEASURED)].split(ENCODE_BATCH):
            decoded = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
            psnr.append(-10 * ((decoded - part) / 2).pow(2).mean((1, 2, 3)).log10())
    mean, std = float(z.mean()), float(z.std())
    vae.register_to_config(scaling_factor=1 / std, shift_factor=mean)
    return Encoded(vae, (z - mean) / std, float(torch.cat(psnr).mean()))


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Means (N, 4, 8, 8) of the latents of images (N, 3, 32, 32) in [0, 1], neither shifted nor scaled."""
    parts = (images * 2 - 1).split(ENCODE_BATCH)
    return torch.cat([vae.encode(part).latent_dist.mean for part in parts])
