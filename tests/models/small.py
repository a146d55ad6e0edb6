"""FLUX.1-dev and SD3.5-M made small: the same files and configs, narrow networks, random weights stored in bf16.

Latents of 16 channels at an eighth of the picture, text of 77 CLIP and up to 512 T5 tokens, weights in several files
with an index, tokenizers as vocabulary, merges and a sentencepiece model: the real layout in 2 MB.
"""

import io
import json
from pathlib import Path

import sentencepiece
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WIDTH = 32
RESOLUTION = 64
CAPTIONS = [
    "a watercolour of two foxes, one asleep",
    "the letter Q in neon; rain on glass " * 40,
    "x",
]
"""Short, longer than any encoder takes, one letter."""


def small_flux(folder: Path) -> Path:
    """A FLUX.1-dev in `folder`."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        pipeline = FluxPipeline(
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=64,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                pooled_projection_dim=WIDTH,
                guidance_embeds=True,
                axes_dims_rope=(4, 6, 6),
            ),
            vae=vae(scaling=0.3611, shift=0.1159),
            text_encoder=CLIPTextModel(clip_config(WIDTH)),
            text_encoder_2=t5(),
            tokenizer=clip_tokenizer(folder.parent / "clip"),
            tokenizer_2=t5_tokenizer(folder.parent / "t5"),
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0,
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=1.15,
                base_image_seq_len=256,
                max_image_seq_len=4096,
            ),
        )
    return save(pipeline, folder)


def small_sd3(folder: Path) -> Path:
    """An SD3.5-M in `folder`."""
    clips = [clip_config(width) for width in (8, 16)]
    with torch.random.fork_rng():
        torch.manual_seed(12)
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=128,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                caption_projection_dim=WIDTH,
                pooled_projection_dim=24,
                pos_embed_max_size=12,
                dual_attention_layers=(0,),
                qk_norm="rms_norm",
            ),
            vae=vae(scaling=1.5305, shift=0.0609),
            text_encoder=CLIPTextModelWithProjection(clips[0]),
            text_encoder_2=CLIPTextModelWithProjection(clips[1]),
            text_encoder_3=t5(),
            tokenizer=clip_tokenizer(folder.parent / "clip"),
            tokenizer_2=clip_tokenizer(folder.parent / "clip_2", pad="!"),
            tokenizer_3=t5_tokenizer(folder.parent / "t5"),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
    return save(pipeline, folder)


def save(pipeline: FluxPipeline | StableDiffusion3Pipeline, folder: Path) -> Path:
    """bf16, in several files of at most 60 KB; tokenizers as they were made, not as this library would save them."""
    pipeline.to(torch.bfloat16).save_pretrained(folder, max_shard_size="60KB")
    t5_part = "text_encoder_3" if "text_encoder_3" in pipeline.components else "text_encoder_2"
    (folder / t5_part / "model.safetensors").unlink()
    pipeline.components[t5_part].save_pretrained(folder / t5_part, max_shard_size="20KB")
    for name, made in pipeline.components.items():
        if name.startswith("tokenizer"):
            for file in (folder / name).iterdir():
                file.unlink()
            for file in Path(made.name_or_path).iterdir():
                (folder / name / file.name).write_bytes(file.read_bytes())
    return folder


def vae(*, scaling: float, shift: float) -> AutoencoderKL:
    """Of four levels, with the real scaling and no quantising convolutions."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=16,
        sample_size=1024,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    )


def clip_config(width: int) -> CLIPTextConfig:
    """A CLIP text encoder of `width`."""
    return CLIPTextConfig(
        vocab_size=80,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=2,  # as published: the pooled token is then the one with the highest id
    )


def t5() -> T5EncoderModel:
    """The T5 v1.1 encoder, narrow."""
    return T5EncoderModel(
        T5Config(
            vocab_size=160,
            d_model=WIDTH,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def clip_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Of letters, in the files that OpenAI published: vocabulary and merges."""
    folder.mkdir(exist_ok=True)
    letters = "!,;abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    merges = "#version: 0.2\nt h\nth e</w>\n"
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text(merges)
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


def t5_tokenizer(folder: Path) -> T5TokenizerFast:
    """A sentencepiece model of the captions, with the 100 extra tokens of T5."""
    folder.mkdir(exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 3),
        model_writer=model,
        vocab_size=50,
        hard_vocab_limit=False,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": 512,
        "extra_ids": 100,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return T5TokenizerFast.from_pretrained(folder)
