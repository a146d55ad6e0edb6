"""The tiny world's second base model: a small SD3.5, saved as a `StableDiffusion3Pipeline` directory.

It has the autoencoder of the first one, `flux`, and is guided by the difference that a caption makes.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from mixgrpo.errors import UserError
from mixgrpo.tiny.autoencoder import encode
from mixgrpo.tiny.config import PretrainConfig
from mixgrpo.tiny.fit import fit
from mixgrpo.tiny.flow import HEAD, SAMPLING_SHIFT, flow_loss
from mixgrpo.tiny.pictures import Pictures, for_generator
from mixgrpo.tiny.render import SIZE
from mixgrpo.tiny.samples import save_samples
from mixgrpo.tiny.text import (
    clip_text_config,
    clip_tokenizer,
    t5_config,
    t5_tokenizer,
    token_ids,
)

CLIP_LENGTH = 9
"""Tokens of a padded CLIP prompt: seven words, start and end."""
PATCH = 2
NUM_TRAIN_TIMESTEPS = 1000
GUIDANCE, NUM_STEPS = 2.0, 10
"""Of the samples drawn."""


def load_autoencoder(path: Path) -> AutoencoderKL:
    """The autoencoder of the base model at `path`. UserError when it is not there or damaged."""
    folder = path / "vae"
    try:
        # not from_pretrained: it writes the path into the config, and the config is saved again
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, local_files_only=True))
        vae.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder} cannot be loaded ({str(error).splitlines()[0]}). Component sd3 shares the autoencoder of "
            f"component flux: `pretrain --component flux --output {path}` makes it."
        ) from None
    return vae.eval().requires_grad_(False)


def build_pipeline(vae: AutoencoderKL, config: PretrainConfig) -> StableDiffusion3Pipeline:
    """Transformer and text encoders with random weights, around a trained autoencoder.

    As in SD3.5: two CLIPs, the second wider, are together no wider than T5; the first half of the blocks attends
    to the picture twice.
    """
    clip, t5 = clip_tokenizer(CLIP_LENGTH), t5_tokenizer()
    widths = (config.width // 4, config.width // 2)
    clips = [CLIPTextModelWithProjection(clip_text_config(clip, width)) for width in widths]
    side = SIZE // 2 ** (len(vae.config.block_out_channels) - 1)
    transformer = SD3Transformer2DModel(
        sample_size=side,
        patch_size=PATCH,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        num_layers=config.sd3_blocks,
        attention_head_dim=HEAD,
        num_attention_heads=config.width // HEAD,
        joint_attention_dim=config.width,
        caption_projection_dim=config.width,
        pooled_projection_dim=sum(widths),
        pos_embed_max_size=side // PATCH,
        dual_attention_layers=tuple(range(config.sd3_blocks // 2)),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=SAMPLING_SHIFT
        ),
        vae=vae,
        text_encoder=clips[0],
        tokenizer=clip,
        text_encoder_2=clips[1],
        tokenizer_2=clip,
        text_encoder_3=T5EncoderModel(t5_config(t5, config.width)),
        tokenizer_3=t5,
    )


def encode_text(
    pipeline: StableDiffusion3Pipeline, clip_ids: Tensor, t5_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings (B, S, D) and pooled embeddings (B, D'), as `encode_prompt` makes them, with gradients."""
    clips = [
        encoder(clip_ids, output_hidden_states=True)
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)
    ]
    t5 = pipeline.text_encoder_3(t5_ids)[0]
    states = torch.cat([clip.hidden_states[-2] for clip in clips], -1)
    states = functional.pad(states, (0, t5.shape[-1] - states.shape[-1]))
    pooled = torch.cat([clip.text_embeds for clip in clips], -1)
    return torch.cat([states, t5], 1), pooled


def train_flow(
    pipeline: StableDiffusion3Pipeline, latents: Tensor, texts: list[str], config: PretrainConfig
) -> float:
    """Transformer and text encoders on latents (N, 4, 8, 8) of the N captions; returns the final loss.

    Some captions are replaced by the empty one.
    """
    tokenizers = (pipeline.tokenizer, pipeline.tokenizer_3)
    ids = [token_ids(tokenizer, texts) for tokenizer in tokenizers]
    empty = [token_ids(tokenizer, [""]) for tokenizer in tokenizers]

    def loss() -> Tensor:
        rows = torch.randint(len(latents), (config.flow_batch,))
        dropped = torch.rand(len(rows), 1) < config.sd3_caption_dropout
        shown = [torch.where(dropped, none, i[rows]) for none, i in zip(empty, ids, strict=True)]

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            states, pooled = encode_text(pipeline, *shown)
            return pipeline.transformer(
                hidden_states=x,
                encoder_hidden_states=states,
                pooled_projections=pooled,
                timestep=sigma * NUM_TRAIN_TIMESTEPS,
                return_dict=False,
            )[0]

        return flow_loss(latents[rows], velocity)

    networks = (
        pipeline.transformer,
        pipeline.text_encoder,
        pipeline.text_encoder_2,
        pipeline.text_encoder_3,
    )
    return fit(
        nn.ModuleList(networks),
        loss,
        name="sd3",
        num_steps=config.sd3_steps,
        learning_rate=config.sd3_learning_rate,
        average=config.flow_average,
    )


def draw_samples(pipeline: StableDiffusion3Pipeline, captions: list[str], *, seed: int) -> Tensor:
    """(N, 3, 32, 32) in [0, 1], one guided sample per caption."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=captions,
        height=SIZE,
        width=SIZE,
        num_inference_steps=NUM_STEPS,
        guidance_scale=GUIDANCE,
        max_sequence_length=pipeline.tokenizer_3.model_max_length,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images


def pretrain(component: str, config: PretrainConfig, directory: Path) -> dict[str, float]:
    """Train and save the base model with a picture of samples; returns what was measured.

    The autoencoder is the one of the base model `flux` beside `directory`.
    """
    vae = load_autoencoder(directory.parent / "flux")
    pictures: Pictures = for_generator(config.num_pictures)
    latents = (encode(vae, pictures.images) - vae.config.shift_factor) * vae.config.scaling_factor
    pipeline = build_pipeline(vae, config)
    loss = train_flow(pipeline, latents, pictures.captions, config)
    pipeline.save_pretrained(directory)
    save_samples(
        lambda captions: draw_samples(pipeline, captions, seed=0), directory / "samples.png"
    )
    return {"flow_loss": loss}
