"""Small FLUX.1-dev and SD3.5-M checkpoints in the published layout: plain diffusers and we agree on every number."""

import gc
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from transformers import PreTrainedModel

from mixgrpo.algorithm.schedule import SCHEDULES
from mixgrpo.config import LoraConfig
from mixgrpo.models import load_policy, load_text_encoder
from mixgrpo.records import Conditioning
from mixgrpo.training.rollout import sample_ode
from tests.models.conftest import Small, change_weights
from tests.models.small import CAPTIONS, RESOLUTION

CPU = torch.device("cpu")
LORA = LoraConfig(rank=4, alpha=8)
PIPELINES = {"flux": FluxPipeline, "sd3": StableDiffusion3Pipeline}
NUM_STEPS = 6


def pipeline(small: Small, folder: Path | None = None):
    """What a user of plain diffusers has."""
    loaded = PIPELINES[small.name].from_pretrained(folder or small.path, torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def noise_of(policy) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(CAPTIONS), *policy.latent_shape, generator=generator)


def shift_of(pipe) -> float:
    """The time shift that the pipeline's own scheduler has at this resolution."""
    config = pipe.scheduler.config
    if not config.use_dynamic_shifting:
        return config.shift
    tokens = (RESOLUTION // 16) ** 2
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
    return float(torch.tensor(mu).exp())


def our_images(small: Small, policy, cond: Conditioning, shift: float) -> torch.Tensor:
    schedule = SCHEDULES[{"flux": "shifted", "sd3": "sd3"}[small.name]]
    noise = noise_of(policy)
    latents = sample_ode(policy, cond, schedule(NUM_STEPS, shift), noise, micro_batch=len(noise))
    return policy.decode(latents)


@torch.no_grad()
def their_images(small: Small, pipe, noise: torch.Tensor) -> torch.Tensor:
    length = {"flux": 512, "sd3": 256}[small.name]
    return pipe(
        prompt=CAPTIONS,
        latents=noise,
        num_inference_steps=NUM_STEPS,
        guidance_scale=small.config().guidance,
        max_sequence_length=length,
        height=RESOLUTION,
        width=RESOLUTION,
        output_type="pt",
    ).images


@pytest.fixture
def cond(small: Small) -> Conditioning:
    return load_text_encoder(small.config(), CPU)(CAPTIONS)


def test_same_prompts_and_noise_same_pictures(small: Small, cond: Conditioning):
    """From text to pixels, within 2e-5 of a pixel in [0, 1], with the scheduler's own steps."""
    pipe = pipeline(small)
    policy = load_policy(small.config(), CPU)
    theirs = their_images(small, pipe, noise_of(policy))
    ours = our_images(small, policy, cond, shift_of(pipe))
    assert theirs.std() > 0.02
    assert (theirs[0] - theirs[2]).abs().max() > 1e-3  # the prompts matter
    assert (ours - theirs).abs().max() < 2e-5


def test_text_has_the_real_lengths_and_the_pipeline_s_numbers(small: Small, cond: Conditioning):
    pipe = pipeline(small)
    with torch.no_grad():
        if small.name == "flux":
            states, pooled, _ = pipe.encode_prompt(CAPTIONS, max_sequence_length=512)
            shape = (3, 512, 32)
        else:
            states, empty, pooled, _ = pipe.encode_prompt(
                CAPTIONS, None, None, max_sequence_length=256
            )
            shape = (3, 77 + 256, 32)
            torch.testing.assert_close(
                cond.shared["prompt_embeds"], empty[:1], rtol=1e-4, atol=1e-5
            )
    assert cond.tensors["prompt_embeds"].shape == shape
    torch.testing.assert_close(cond.tensors["prompt_embeds"], states)
    torch.testing.assert_close(cond.tensors["pooled_prompt_embeds"], pooled)


def test_text_in_bf16_is_close_and_feeds_the_fp32_network(small: Small, cond: Conditioning):
    """Within 2 % of the largest number (measured: 1 %); the velocity takes it as it is."""
    short = load_text_encoder(small.config(text_precision="bf16"), CPU)(CAPTIONS)
    policy = load_policy(small.config(), CPU)
    for name, rows in cond.tensors.items():
        assert short.tensors[name].dtype == torch.bfloat16
        assert (short.tensors[name].float() - rows).abs().max() < 0.02 * rows.abs().max()
    with torch.no_grad():
        v = policy.velocity(noise_of(policy), torch.tensor(0.5), short)
    assert v.dtype == torch.float32
    assert v.isfinite().all()


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_weights_survive_saving(small: Small, cond: Conditioning, tmp_path: Path, lora):
    policy = load_policy(small.config(), CPU, lora=lora)
    change_weights(policy)
    policy.save_weights(tmp_path / "model.safetensors")
    again = load_policy(small.config(), CPU)
    again.load_weights(tmp_path / "model.safetensors")
    noise = noise_of(policy)
    with torch.no_grad():
        v, same = (p.velocity(noise, torch.tensor(0.5), cond) for p in (policy, again))
        other = load_policy(small.config(), CPU).velocity(noise, torch.tensor(0.5), cond)
    assert (v - same).abs().max() < 1e-6
    assert (v - other).abs().max() > 1e-2


def test_plain_diffusers_draws_with_our_adapters(small: Small, cond: Conditioning, tmp_path: Path):
    """`pipe.load_lora_weights` on our file; within 2e-5 of a pixel."""
    policy = load_policy(small.config(), CPU, lora=LORA)
    change_weights(policy)
    policy.save_weights(tmp_path / "model.safetensors")
    pipe = pipeline(small)
    before = their_images(small, pipe, noise_of(policy))
    pipe.load_lora_weights(tmp_path, weight_name="model.safetensors")
    theirs = their_images(small, pipe, noise_of(policy))
    assert (before - theirs).abs().max() > 1e-2
    assert (our_images(small, policy, cond, shift_of(pipe)) - theirs).abs().max() < 2e-5


def test_a_gathered_state_is_saved_in_place_of_the_network_s_own(small: Small, tmp_path: Path):
    for lora in (None, LORA):
        policy = load_policy(small.config(), CPU, lora=lora)
        change_weights(policy)
        state = {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}
        policy.save_weights(tmp_path / "own.safetensors")
        change_weights(policy)
        policy.save_weights(tmp_path / "gathered.safetensors", state)
        own, gathered = (tmp_path / f"{n}.safetensors" for n in ("own", "gathered"))
        assert own.read_bytes() == gathered.read_bytes()


def test_frozen_weights_in_bf16_leave_adapters_in_fp32(small: Small, cond: Conditioning):
    """They change less than bf16 compute does (0.4 and 3 % of the largest velocity; bf16 itself 7 and 4 %)."""
    exact, short = (
        load_policy(small.config(), CPU, lora=LORA, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    for policy in (exact, short):
        change_weights(policy)
        trained = [p for p in policy.network.parameters() if p.requires_grad]
        assert all(p.dtype == torch.float32 for p in trained)
    frozen = [p for p in short.network.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.dtype == torch.bfloat16 for p in frozen)
    noise, sigma = noise_of(exact), torch.tensor(0.5)
    with torch.no_grad():
        v = exact.velocity(noise, sigma, cond)
        with torch.autocast("cpu", torch.bfloat16):
            v_exact, v_short = (p.velocity(noise, sigma, cond) for p in (exact, short))
    assert 0 < (v_short - v_exact).abs().max() < (v_exact - v).abs().max()


def test_text_encoders_are_in_memory_nowhere_but_where_text_is_embedded(small: Small):
    gc.collect()
    before = {id(o) for o in gc.get_objects() if isinstance(o, PreTrainedModel)}
    policy = load_policy(small.config(), CPU)
    found = [o for o in gc.get_objects() if isinstance(o, PreTrainedModel) and id(o) not in before]
    assert policy.network is not None
    assert not found
    encode = load_text_encoder(small.config(), CPU)
    assert any(isinstance(o, PreTrainedModel) and id(o) not in before for o in gc.get_objects())
    del encode
