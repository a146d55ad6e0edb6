"""The estimate against what is really there: counted tensors of a network on this CPU."""

from dataclasses import replace

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

from mixgrpo.config import LoraConfig, TrainingConfig
from mixgrpo.errors import UserError
from mixgrpo.models import load_outline
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.memory import (
    Load,
    NetworkSize,
    activation_bytes,
    advice,
    available_bytes,
    estimate,
    refuse_what_cannot_fit,
    size_of,
)
from mixgrpo.training.trainer import load_trainer

FLUX = NetworkSize(
    parameters=11_901_408_320,
    trained=11_901_408_320,
    block=339_831_296,
    num_blocks=57,
    width=3072,
)
"""FLUX.1-dev."""
LOAD = Load(tokens=2025 + 512, pixels=12 * 720**2, reward_bytes=12 * 10**9, num_bases=0)
GPU = 80 * 10**9
TOKENS, TEXT = 256, 64


def flux() -> torch.nn.Module:
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def flux_inputs(batch: int) -> dict:
    return {
        "hidden_states": torch.randn(batch, TOKENS, 16),
        "encoder_hidden_states": torch.randn(batch, TEXT, 64),
        "pooled_projections": torch.randn(batch, 32),
        "timestep": torch.rand(batch),
        "img_ids": torch.zeros(TOKENS, 3),
        "txt_ids": torch.zeros(TEXT, 3),
        "guidance": torch.ones(batch),
    }


def sd3() -> torch.nn.Module:
    return SD3Transformer2DModel(
        sample_size=32,
        in_channels=16,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=128,
        pooled_projection_dim=32,
        pos_embed_max_size=32,
        dual_attention_layers=(0, 1, 2),
        qk_norm="rms_norm",
    )


def sd3_inputs(batch: int) -> dict:
    return {
        "hidden_states": torch.randn(batch, 16, 32, 32),
        "encoder_hidden_states": torch.randn(batch, TEXT, 64),
        "pooled_projections": torch.randn(batch, 32),
        "timestep": torch.rand(batch),
    }


def kept_for_backward(network: torch.nn.Module, inputs: dict) -> int:
    """Bytes of what autograd keeps in one bf16 forward pass; weights and their copies not counted."""
    weights = {tuple(p.shape) for p in network.parameters()}
    weights |= {shape[::-1] for shape in weights}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        network(**inputs, return_dict=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("make", "inputs"), [(flux, flux_inputs), (sd3, sd3_inputs)])
def test_activations_are_within_a_third_of_what_autograd_keeps(make, inputs, checkpointing):
    """The networks here are narrower than the real ones, and their attention keeps the same."""
    network = make().train()
    config = TrainingConfig(micro_batch=2, gradient_checkpointing=checkpointing)
    load = replace(LOAD, tokens=TOKENS + TEXT)
    size = size_of(network)
    estimated = activation_bytes(size, load, config)
    if checkpointing:
        network.enable_gradient_checkpointing()
        # Autograd keeps the inputs alone; the one block in its turn comes while it goes back.
        one_block = replace(size, num_blocks=1)
        estimated -= activation_bytes(
            one_block, load, replace(config, gradient_checkpointing=False)
        )
        estimated += 10 * load.tokens * size.width * config.micro_batch  # the ends, taken off too
    kept = kept_for_backward(network, inputs(2))
    assert kept / 1.5 < estimated < kept * 1.5


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8)])
def test_what_stays_is_counted_to_the_byte(world, lora):
    """Weights, gradients and Adam's moments of a real optimizer step, against the estimate of the outline."""
    config = {"lora": None if lora is None else {"rank": 4, "alpha": 8}}
    settings = world.settings(training=config)
    size = size_of(load_outline(settings.model, settings.training.lora).network)
    found = estimate(size, LOAD, settings.training, world_size=1)
    trainer = load_trainer(
        settings, Distributed(), prompts=world.prompts, embeddings=world.embeddings
    )
    for parameter in trainer.parameters:
        parameter.grad = torch.ones_like(parameter)
    trainer.optimizer.step()
    moments = [
        tensor
        for state in trainer.optimizer.state.values()
        for tensor in state.values()
        if tensor.ndim
    ]

    def nbytes(tensors) -> int:
        return sum(tensor.nbytes for tensor in tensors)

    assert found["weights"] == nbytes(trainer.policy.network.parameters())
    assert found["gradients"] == nbytes(p.grad for p in trainer.parameters)
    assert found["optimizer"] == nbytes(moments)


def total(config: TrainingConfig, world_size: int) -> int:
    return sum(estimate(FLUX, LOAD, config, world_size=world_size).values())


def test_all_weights_of_flux_need_sharding():
    """16 bytes for each of 12 billion parameters are more than one GPU has, and fit on eight."""
    alone = TrainingConfig(gradient_checkpointing=True)
    assert total(alone, 1) == total(alone, 32) > 190 * 10**9
    fsdp = replace(alone, sharding="fsdp", gradient_reduction="backward")
    assert total(fsdp, 8) < GPU < total(fsdp, 2)
    at_update = replace(fsdp, gradient_reduction="update")
    assert total(at_update, 8) > GPU > total(at_update, 32)


def test_checkpointing_saves_activations_and_the_advice_says_so():
    config = TrainingConfig(micro_batch=12, lora=LoraConfig(rank=32, alpha=64))
    size = replace(FLUX, trained=50_000_000)
    found = estimate(size, LOAD, config, world_size=1)
    with pytest.raises(UserError) as caught:
        refuse_what_cannot_fit(found, GPU, config, world_size=1)
    message = str(caught.value)
    assert "80 GB are free" in message
    assert "training.gradient_checkpointing: true" in message
    assert "lower training.micro_batch (12)" in message
    assert "MIXGRPO_REWARDS" in message
    followed = replace(config, gradient_checkpointing=True)
    refuse_what_cannot_fit(
        estimate(size, LOAD, followed, world_size=1), GPU, followed, world_size=1
    )


def test_the_advice_is_about_what_is_not_done_yet():
    config = TrainingConfig(
        gradient_checkpointing=True, sharding="fsdp", micro_batch=1, gradient_reduction="update"
    )
    ways = advice(estimate(FLUX, LOAD, config, world_size=4), config, world_size=4)
    assert ways == [
        "offload rewards or place them elsewhere (MIXGRPO_REWARDS, docs/rewards.md)",
        "set training.gradient_reduction: backward",
        "start more processes than 4",
        "train adapters (training.lora)",
    ]


def test_a_run_that_cannot_fit_is_refused_before_the_model_is_loaded(world, monkeypatch):
    monkeypatch.setattr("mixgrpo.training.trainer.available_bytes", lambda *_: 10**6)
    monkeypatch.setattr(
        "mixgrpo.training.trainer.load_policy", lambda *_, **__: pytest.fail("loaded")
    )
    with pytest.raises(UserError, match=r"training needs about .* GB, 0\.001 GB are free"):
        load_trainer(
            world.settings(), Distributed(), prompts=world.prompts, embeddings=world.embeddings
        )


def test_free_memory_of_this_machine_is_shared_by_its_processes(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr("mixgrpo.training.memory.MEMINFO", tmp_path / "meminfo")
    everything = available_bytes(cpu, 1)  # as where there is no such file
    assert everything > 10**8
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert available_bytes(cpu, 1) == 4000 * 1024
    assert available_bytes(cpu, 4) == 1000 * 1024


def test_an_offloaded_reward_counts_where_nothing_larger_comes_and_goes():
    config = TrainingConfig(micro_batch=1, gradient_checkpointing=True)
    at_rest = replace(LOAD, reward_bytes=0)
    without = estimate(FLUX, at_rest, config, world_size=1)
    small = estimate(FLUX, replace(at_rest, visiting_bytes=10**9), config, world_size=1)
    large = estimate(FLUX, replace(at_rest, visiting_bytes=10**12), config, world_size=1)
    assert small == without
    assert large["offloaded reward"] == 10**12
    assert sum(large.values()) < sum(without.values()) + 10**12
    assert advice(large, config, world_size=1)[0].startswith("offload rewards or place them")


def test_offloaded_rewards_are_in_the_estimate_of_a_run(world, monkeypatch):
    monkeypatch.setenv("MIXGRPO_REWARDS", "tiny_hps=offload")
    seen: list[int] = []

    def measured(*arguments, **options):
        seen.append(arguments[1].visiting_bytes)
        return estimate(*arguments, **options)

    monkeypatch.setattr("mixgrpo.training.trainer.estimate", measured)
    trainer = load_trainer(
        world.settings(), Distributed(), prompts=world.prompts, embeddings=world.embeddings
    )
    hps, other = trainer.rewards
    assert seen == [hps.visiting_bytes]
    assert hps.visiting_bytes > 10**4
    assert other.visiting_bytes == 0
