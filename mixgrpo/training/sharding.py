"""Weights, gradients and optimizer state split over all processes (FSDP2), and checkpoints of the parts.

By torch's own `fully_shard`, not by accelerate's plugin: on CPU processes accelerate 1.15 ignores the plugin without a
word and wraps the network for plain data parallelism, so nothing here could be tested; and it prepares one
network, not also a frozen second one.

Checkpoints are torch.distributed.checkpoint's, in safetensors: each process writes its parts with their place in the
whole, and any number of processes reads them. Its usual storage keeps the index in a pickle, which can run code when it
is read; this one has none. (While they write, the processes send each other pickled plans, inside the one job.)
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(network: torch.nn.Module, device: torch.device, world_size: int, *, bf16: bool) -> None:
    """Split `network` over all processes in place: its blocks one by one, and what is left.

    It has weights on the CPU of the first process, and is on the meta device in the others, which get their parts.
    A block's weights are whole only while it computes. bf16: they are sent and used in bf16; the parts at
    rest, gradients and their sums are fp32. Activations are left to autocast, as without sharding.
    """
    mesh = init_device_mesh(device.type, (world_size,))
    loaded = dict(tensors_of(network))
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # else sigma would be rounded to bf16
    )
    for blocks in network.children():
        if isinstance(blocks, torch.nn.ModuleList):
            for block in blocks:
                fully_shard(block, mesh=mesh, mp_policy=policy)
    # Blocks of FLUX return slices of one tensor. It is only dangerous to change one in place, which nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    fully_shard(network, mesh=mesh, mp_policy=policy)
    if any(tensor.is_meta for tensor in loaded.values()):
        network.to_empty(device=device)
    with torch.no_grad():
        for name, tensor in tensors_of(network):
            fill_from_first(tensor, loaded.pop(name))


def tensors_of(network: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All weights, and what else a network keeps, by name: positions that no file has, too."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def fill_from_first(tensor: Tensor, loaded: Tensor) -> None:
    """Give `tensor`, or its parts in all processes, the value that `loaded` has in the first, a tensor at a time."""
    place = tensor.device
    value = torch.empty(loaded.shape, dtype=loaded.dtype, device=place)
    if not loaded.is_meta:
        value.copy_(loaded)
    distributed.broadcast(value, src=0)
    if isinstance(tensor, DTensor):
        value = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(value)


def is_sharded(network: torch.nn.Module) -> bool:
    """Whether `shard` has split it."""
    return isinstance(network, FSDPModule)


def reduce_after_this_backward(network: torch.nn.Module, reduce: bool) -> None:
    """Whether the next backward pass sums the gradients over the processes, or only adds to them."""
    cast(FSDPModule, network).set_requires_gradient_sync(reduce)


def has_parts(tensor: Tensor) -> bool:
    """Whether each process holds only a part of it."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The tensor without parts; every process must ask. Itself when it has none."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(network: torch.nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """All weights, gathered one by one, on the CPU of the processes that `keep` them; empty elsewhere."""
    weights = {}
    for name, tensor in network.state_dict().items():
        gathered = whole(tensor.detach())
        if keep:
            weights[name] = gathered.cpu()
    return weights


def write_parts(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Every process writes its parts of `tensors` into `directory`, synced. OSError, in all, when one cannot."""
    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    try:
        with warnings.catch_warnings(action="ignore"):  # that a single process writes alone
            dcp.save(dict(tensors), storage_writer=writer)
    except (CheckpointException, SafetensorError, RuntimeError) as error:
        raise OSError(_reason(error)) from None


def read_parts(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill this process's parts of `tensors` in place. ValueError when the directory has no such tensors."""
    try:
        with warnings.catch_warnings(action="ignore"):
            dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(directory)))
    except (CheckpointException, SafetensorError, RuntimeError) as error:
        raise ValueError(_reason(error)) from None


def _reason(error: BaseException) -> str:
    """What went wrong, in the words of the process where it did."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return (str(error).splitlines() or [type(error).__name__])[0]
