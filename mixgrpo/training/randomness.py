"""Randomness as a function of what it is for, never of how many draws came before.

A resumed run, another number of processes, another order of work: all draw the same numbers.
"""

import hashlib

import torch
from torch import Tensor


def seeded(*purpose: object) -> torch.Generator:
    """A CPU generator whose stream depends on `purpose` alone, such as (seed, "noise", iteration, id)."""
    digest = hashlib.sha256(repr(purpose).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(shape: tuple[int, ...], *purpose: object) -> Tensor:
    """Standard normal numbers of `shape`, fp32 on the CPU."""
    return torch.randn(shape, generator=seeded(*purpose))


def batch_of_iteration(
    num_prompts: int, batch_size: int, *, iteration: int, seed: int
) -> list[int]:
    """Rows of the `iteration`-th batch: every epoch is a new permutation of the prompts; batches may span two.

    >>> sorted(batch_of_iteration(4, 2, iteration=0, seed=7) + batch_of_iteration(4, 2, iteration=1, seed=7))
    [0, 1, 2, 3]
    """
    rows = []
    for position in range(iteration * batch_size, (iteration + 1) * batch_size):
        epoch, index = divmod(position, num_prompts)
        order = torch.randperm(num_prompts, generator=seeded(seed, "epoch", epoch))
        rows.append(int(order[index]))
    return rows
