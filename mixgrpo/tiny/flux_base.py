"""The tiny world's base model: a small FLUX, trained from scratch and saved as a `FluxPipeline` directory."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from mixgrpo.tiny.autoencoder import LATENT_CHANNELS, train_autoencoder
from mixgrpo.tiny.config import PretrainConfig
from mixgrpo.tiny.fit import fit
from mixgrpo.tiny.flow import HEAD, SAMPLING_SHIFT, flow_loss
from mixgrpo.tiny.pictures import Pictures, for_generator
from mixgrpo.tiny.render import SIZE
from mixgrpo.tiny.samples import save_samples
from mixgrpo.tiny.text import (
    T5_LENGTH,
    clip_text_config,
    clip_tokenizer,
    t5_config,
    t5_tokenizer,
    token_ids,
)

ROPE_AXES = (4, 6, 6)
GUIDANCE = 3.5
NUM_STEPS = 25
"""Of the samples drawn."""


def build_pipeline(vae: nn.Module, config: PretrainConfig) -> FluxPipeline:
    """Transformer and text encoders with random weights, around a trained autoencoder."""
    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=config.num_double_blocks,
        num_single_layers=config.num_single_blocks,
        attention_head_dim=HEAD,
        num_attention_heads=config.width // HEAD,
        joint_attention_dim=config.width,
        pooled_projection_dim=config.width,
        guidance_embeds=True,
        axes_dims_rope=ROPE_AXES,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SAMPLING_SHIFT),
        vae=vae,
        text_encoder=CLIPTextModel(clip_text_config(tokenizer, config.width)),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(t5_config(tokenizer_2, config.width)),
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


def train_flow(
    pipeline: FluxPipeline, latents: Tensor, texts: list[str], config: PretrainConfig
) -> float:
    """Transformer and text encoders on latents (N, 4, 8, 8) of the N captions; returns the final loss."""
    n, channels, side = len(latents), latents.shape[1], latents.shape[2]
    x0_N = FluxPipeline._pack_latents(latents, n, channels, side, side)
    image_ids = FluxPipeline._prepare_latent_image_ids(n, side // 2, side // 2, "cpu", x0_N.dtype)
    text_ids = torch.zeros(T5_LENGTH, 3)
    guidance = torch.full((config.flow_batch,), GUIDANCE)
    clip_ids, t5_ids = token_ids(pipeline.tokenizer, texts), token_ids(pipeline.tokenizer_2, texts)

    def loss() -> Tensor:
        rows = torch.randint(n, (config.flow_batch,))

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return pipeline.transformer(
                hidden_states=x,
                encoder_hidden_states=pipeline.text_encoder_2(t5_ids[rows])[0],
                pooled_projections=pipeline.text_encoder(clip_ids[rows]).pooler_output,
                timestep=sigma,
                img_ids=image_ids,
                txt_ids=text_ids,
                guidance=guidance,
                return_dict=False,
            )[0]

        return flow_loss(x0_N[rows], velocity)

    networks = (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)
    return fit(
        nn.ModuleList(networks),
        loss,
        name="flux",
        num_steps=config.flow_steps,
        learning_rate=config.flow_learning_rate,
        average=config.flow_average,
    )


def draw_samples(pipeline: FluxPipeline, captions: list[str], *, seed: int) -> Tensor:
    """(N, 3, 32, 32) in [0, 1], one sample per caption."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=captions,
        height=SIZE,
        width=SIZE,
        num_inference_steps=NUM_STEPS,
        sigmas=[1 - i / NUM_STEPS for i in range(NUM_STEPS)],
        max_sequence_length=pipeline.tokenizer_2.model_max_length,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images


def pretrain(component: str, config: PretrainConfig, directory: Path) -> dict[str, float]:
    """Train and save the base model with a picture of samples; returns what was measured."""
    pictures: Pictures = for_generator(config.num_pictures)
    encoded = train_autoencoder(pictures.images, config)
    pipeline = build_pipeline(encoded.vae, config)
    loss = train_flow(pipeline, encoded.latents, pictures.captions, config)
    pipeline.save_pretrained(directory)
    save_samples(
        lambda captions: draw_samples(pipeline, captions, seed=0), directory / "samples.png"
    )
    return {"autoencoder_psnr": encoded.psnr, "flow_loss": loss}
