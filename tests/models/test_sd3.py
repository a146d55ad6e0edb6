"""SD3.5 as a policy: guidance, schedule and decoding are the plain pipeline's; LoRA files are diffusers' own."""

from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline

from mixgrpo.algorithm.schedule import sd3_sigmas
from mixgrpo.config import LoraConfig
from mixgrpo.errors import UserError
from mixgrpo.models import load_policy, load_text_encoder
from mixgrpo.prompts import read_embeddings, read_prompts
from mixgrpo.training.rollout import sample_ode

CPU = torch.device("cpu")
LORA = LoraConfig(rank=4, alpha=8)
CAPTIONS = ["flat small red ring on white", "shaded big blue star on sand"]


@pytest.fixture(scope="module")
def cond(sd3_world):
    return read_embeddings(sd3_world.embeddings, read_prompts(sd3_world.prompts))


def ode_images(policy, cond, noise, num_steps=10):
    sigmas = sd3_sigmas(num_steps, 3.0)
    return policy.decode(sample_ode(policy, cond, sigmas, noise, micro_batch=len(noise)))


def pipeline_images(pipe, cond, noise, *, guidance, num_steps=10):
    pipe.set_progress_bar_config(disable=True)
    shared = {f"negative_{n}": t.expand(len(noise), *t.shape[1:]) for n, t in cond.shared.items()}
    return pipe(
        **cond.tensors,
        **shared,
        latents=noise,
        num_inference_steps=num_steps,
        guidance_scale=guidance,
        height=32,
        width=32,
        output_type="pt",
    ).images


def make_adapters_matter(policy) -> None:
    """As training would: the second factors of fresh adapters are zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("guidance", [2.0, 4.5])
def test_same_noise_same_picture_as_the_pipeline(sd3_world, cond, guidance):
    """Within 1e-5 of a pixel in [0, 1]: 10 steps of its own scheduler, both branches in one batch."""
    config = replace(sd3_world.settings().model, guidance=guidance)
    policy = load_policy(config, CPU)
    pipe = StableDiffusion3Pipeline.from_pretrained(config.path)
    noise = torch.randn(8, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = pipeline_images(pipe, cond, noise, guidance=guidance)
    assert (ode_images(policy, cond, noise) - theirs).abs().max() < 1e-5


def test_guidance_mixes_the_branches_and_counts_images_once(sd3_world, cond):
    config = sd3_world.settings().model
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor(0.6, dtype=torch.float64)
    with torch.no_grad():
        guided, plain = (load_policy(replace(config, guidance=g), CPU) for g in (3.0, 1.0))
        v_prompt = plain.velocity(noise, sigma, cond)
        empty = replace(
            cond, tensors={n: t.expand(8, *t.shape[1:]) for n, t in cond.shared.items()}
        )
        v_empty = plain.velocity(noise, sigma, empty)
        v = guided.velocity(noise, sigma, cond)
        torch.testing.assert_close(v, v_empty + 3 * (v_prompt - v_empty), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(guided.conditional_velocity(noise, sigma, cond), v_prompt)
    assert (v_prompt - v_empty).abs().max() > 1e-4
    assert guided.num_evaluations == 16


def test_embeddings_are_the_pipeline_s(sd3_world):
    config = sd3_world.settings().model
    ours = load_text_encoder(config, CPU)(CAPTIONS)
    pipe = StableDiffusion3Pipeline.from_pretrained(config.path)
    theirs = pipe.encode_prompt(CAPTIONS, None, None, max_sequence_length=8)
    names = ("prompt_embeds", "pooled_prompt_embeds")
    for name, prompt, empty in zip(names, theirs[::2], theirs[1::2], strict=True):
        torch.testing.assert_close(ours.tensors[name], prompt)
        torch.testing.assert_close(ours.shared[name], empty[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_fresh_adapters_change_nothing_and_alone_are_trained(world, sd3_world, name):
    made = {"flux": world, "sd3": sd3_world}[name]
    config = made.settings().model
    rows = read_prompts(made.prompts)
    cond = read_embeddings(made.embeddings, rows)
    base, policy = load_policy(config, CPU), load_policy(config, CPU, lora=LORA)
    noise = torch.randn(8, *base.latent_shape)
    sigma = torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(base.velocity(noise, sigma, cond), policy.velocity(noise, sigma, cond))
    trained = [n for n, p in policy.network.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in n for n in trained)
    again = dict(load_policy(config, CPU, lora=LORA).network.named_parameters())
    assert all(torch.equal(p, again[n]) for n, p in policy.network.named_parameters())


def test_plain_diffusers_loads_the_adapters_of_sd3(sd3_world, cond, tmp_path):
    """`pipe.load_lora_weights` on our file draws what the tuned policy draws, alpha / rank included."""
    config = sd3_world.settings().model
    policy = load_policy(config, CPU, lora=LORA)
    make_adapters_matter(policy)
    file = tmp_path / "model.safetensors"
    policy.save_weights(file)
    noise = torch.randn(8, *policy.latent_shape, generator=torch.Generator().manual_seed(2))
    ours = ode_images(policy, cond, noise)
    pipe = StableDiffusion3Pipeline.from_pretrained(config.path)
    with torch.no_grad():
        before = pipeline_images(pipe, cond, noise, guidance=config.guidance)
        pipe.load_lora_weights(tmp_path, weight_name=file.name)
        theirs = pipeline_images(pipe, cond, noise, guidance=config.guidance)
    assert (ours - theirs).abs().max() < 1e-5
    assert (before - theirs).abs().max() > 1e-2
    again = load_policy(config, CPU)
    again.load_weights(file)
    assert (ode_images(again, cond, noise) - ours).abs().max() < 1e-6


def test_plain_diffusers_loads_the_adapters_of_flux(world, tmp_path):
    config = world.settings().model
    policy = load_policy(config, CPU, lora=LORA)
    make_adapters_matter(policy)
    policy.save_weights(tmp_path / "model.safetensors")
    pipe = FluxPipeline.from_pretrained(config.path)
    pipe.load_lora_weights(tmp_path, weight_name="model.safetensors")
    cond = read_embeddings(world.embeddings, read_prompts(world.prompts))
    noise = torch.randn(8, *policy.latent_shape)
    sigma = torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        v = policy.velocity(noise, sigma, cond)
        policy.network = pipe.transformer
        torch.testing.assert_close(policy.velocity(noise, sigma, cond), v)


def test_adapters_of_another_model_and_a_truncated_file_are_refused(world, sd3_world, tmp_path):
    file = tmp_path / "model.safetensors"
    load_policy(world.settings().model, CPU, lora=LORA).save_weights(file)
    sd3 = load_policy(sd3_world.settings().model, CPU)
    with pytest.raises(UserError, match="not the weights of this transformer"):
        sd3.load_weights(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="not the weights of this transformer"):
        load_policy(world.settings().model, CPU).load_weights(file)
