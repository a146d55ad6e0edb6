"""Memory of each process, estimated before the base model is loaded, and refused with advice when it does not fit.

What stays (weights, gradients, optimizer) is counted, rewards are measured; what comes and goes (activations,
decoding) is estimated from sizes, by numbers counted on the layers of FLUX.1 and SD3.5. Activations are right to about
a third: made to find what cannot work, not what only just does.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mixgrpo.config import TrainingConfig
from mixgrpo.errors import UserError

BYTES_OF_BLOCK = 64
"""What a block keeps for its backward pass, bytes per token and channel, with bf16 activations. Counted on the real
layers: FLUX.1 56 (double) and 50 (single), SD3.5-M 88 (dual attention) and 62."""
BYTES_OF_INPUT = 2
"""What a checkpointed block keeps: its input."""
BYTES_OF_ENDS = 10
"""What lies before and after the blocks, counted on the same layers."""
DECODED_PIXELS = 2**20
"""Pixels that are decoded at a time where images are large."""
BYTES_OF_PIXEL = 4096
"""Of the autoencoder while it decodes: 4 GB for 1024 x 1024."""

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of a network that memory depends on."""

    parameters: int
    trained: int
    block: int
    """Parameters of the largest block: what is whole at a time where weights are sharded."""
    num_blocks: int
    width: int
    """Channels of a token inside the blocks."""


@dataclass(frozen=True)
class Load:
    """What goes through the network and the decoder at a time, in one process."""

    tokens: int
    """Of one image and its prompt, in all branches of the guidance."""
    pixels: int
    """Of all images of an iteration."""
    reward_bytes: int
    """What the rewards hold on this device."""
    num_bases: int
    """Frozen networks beside the one in training."""
    visiting_bytes: int = 0
    """The largest reward that is on this device only while it scores."""


def size_of(network: torch.nn.Module) -> NetworkSize:
    """Sizes of a diffusers transformer; one on the meta device has the same."""
    blocks = [
        block
        for blocks in network.children()
        if isinstance(blocks, torch.nn.ModuleList)
        for block in blocks
    ]
    counts = [sum(p.numel() for p in block.parameters()) for block in blocks]
    parameters = list(network.parameters())
    return NetworkSize(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        block=max(counts, default=0),
        num_blocks=len(blocks),
        width=int(getattr(network, "inner_dim", 0)),
    )


def estimate(
    size: NetworkSize, load: Load, config: TrainingConfig, *, world_size: int
) -> dict[str, int]:
    """Bytes in one process at the worst moment, by what they are for."""
    sharded = config.sharding == "fsdp" and world_size > 1
    parts = world_size if sharded else 1
    bf16 = config.precision == "bf16"
    frozen = size.parameters - size.trained
    at_rest = 4 * size.trained + (2 if bf16 else 4) * frozen
    found = {
        "weights": at_rest * (1 + load.num_bases) // parts,
        "gradients": 4 * size.trained // parts,
        "optimizer": 8 * size.trained // parts,
        "rewards": load.reward_bytes,
        "bf16 copies": 2 * size.trained if bf16 and not sharded else 0,
        "blocks gathered": (3 * (2 if bf16 else 4) + 8) * size.block if sharded else 0,
    }
    whole_gradients = 4 * size.trained if sharded and config.gradient_reduction == "update" else 0
    temporary = {
        "activations": activation_bytes(size, load, config) + whole_gradients,
        "decoding": BYTES_OF_PIXEL * min(load.pixels, DECODED_PIXELS),
        "optimizer step": 4 * size.trained // parts,
        "offloaded reward": load.visiting_bytes,
    }
    largest = max(temporary, key=lambda name: temporary[name])
    name = "whole gradients and activations" if whole_gradients else "activations"
    found[name if largest == "activations" else largest] = temporary[largest]
    return found


def activation_bytes(size: NetworkSize, load: Load, config: TrainingConfig) -> int:
    """What one forward pass of `micro_batch` images keeps for its backward pass."""
    if config.gradient_checkpointing:  # all inputs, and all of one block, when its turn comes
        of_channel = BYTES_OF_INPUT * size.num_blocks + BYTES_OF_BLOCK
    else:
        of_channel = BYTES_OF_BLOCK * size.num_blocks
    scale = 1 if config.precision == "bf16" else 2
    channels = load.tokens * size.width * config.micro_batch
    return scale * (of_channel + BYTES_OF_ENDS) * channels


def refuse_what_cannot_fit(
    found: Mapping[str, int], available: int, config: TrainingConfig, *, world_size: int
) -> None:
    """UserError with advice when the estimate is more than `available` bytes."""
    total = sum(found.values())
    if total <= available:
        return
    listed = ", ".join(f"{name} {_gb(value)}" for name, value in found.items() if value)
    several = f" in each of {world_size} processes" if world_size > 1 else ""
    raise UserError(
        f"training needs about {_gb(total)} GB{several}, {_gb(available)} GB are free: {listed}. "
        f"{'; '.join(advice(found, config, world_size=world_size))}."
    )


def advice(found: Mapping[str, int], config: TrainingConfig, *, world_size: int) -> list[str]:
    """What could be done, what costs least first."""
    ways = []
    if not config.gradient_checkpointing and "activations" in " ".join(found):
        ways.append("Set training.gradient_checkpointing: true (a third more time in updates)")
    if config.micro_batch > 1:
        ways.append(f"lower training.micro_batch ({config.micro_batch})")
    if found.get("rewards") or found.get("offloaded reward"):
        ways.append("offload rewards or place them elsewhere (MIXGRPO_REWARDS, docs/rewards.md)")
    if config.sharding == "none":
        ways.append("set training.sharding: fsdp and start more processes, a GPU each")
    else:
        if config.gradient_reduction == "update":
            ways.append("set training.gradient_reduction: backward")
        ways.append(f"start more processes than {world_size}")
    if config.lora is None:
        ways.append("train adapters (training.lora)")
    return ways


def available_bytes(device: torch.device, processes: int) -> int:
    """Free memory of `device`; of a CPU, the share of each of the `processes` that run on this machine."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if MEMINFO.exists():
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024 // processes
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes  # not Linux: all


def _gb(value: int) -> str:
    return f"{value / 1e9:.3g}"
