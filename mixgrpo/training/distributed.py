"""The one file that knows processes and accelerate: device, precision, rank, reductions, trackers.

Prompts are dealt to ranks with groups kept whole; gradients and metrics are reduced once per update and weighted
by each rank's share of the prompts, so that the number of processes changes nothing but round-off.
"""

import datetime
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather, set_seed
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.training import sharding

BUCKET = 2**26
"""Gradient elements that are reduced together: 256 MiB, so that a large model needs no second copy of them all."""
PATIENCE = datetime.timedelta(minutes=30)
"""How long processes wait for one that is slow: saving, or the answer of a reward server."""
LOST = ("closed by peer", "gloo", "NCCL", "Broken pipe", "Connection reset")
"""What the libraries say when a process they talk to has ended."""

Part = TypeVar("Part")


def dealt(num: int, *, rank: int, world_size: int) -> range:
    """Positions of `rank` among `num` things that are dealt as evenly as it goes; the first ranks have one more.

    >>> [list(dealt(5, rank=rank, world_size=3)) for rank in range(3)]
    [[0, 1], [2, 3], [4]]
    """
    each, more = divmod(num, world_size)
    start = rank * each + min(rank, more)
    return range(start, start + each + (rank < more))


def buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, as many at a time as have BUCKET elements together; a larger one is alone."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def refuse_too_few_gpus(num_processes: int) -> None:
    """UserError when processes would have to share a GPU."""
    num_gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and num_gpus < num_processes:
        raise UserError(
            f"{num_processes} processes were started on this machine, which has {num_gpus} GPUs, and each takes one. "
            "Train on more machines (docs/slurm.md), or choose a preset for fewer GPUs, such as reduced."
        )


class Distributed:
    """This process among all that train together; `torchrun` or `accelerate launch` starts several."""

    def __init__(
        self,
        *,
        precision: Literal["no", "bf16"] = "no",
        tracker: str | None = None,
        project_dir: Path | None = None,
    ) -> None:
        """UserError when this machine has GPUs, but fewer than processes were started on it."""
        refuse_too_few_gpus(self.processes_here)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # else several CPU processes do not find each other
            mixed_precision=precision,
            log_with=tracker,
            project_dir=project_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.precision = precision
        self.tracked = tracker is not None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """Index of this process among all."""
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.accelerator.is_main_process

    @property
    def processes_here(self) -> int:
        """Number of processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def seed(self, seed: int) -> None:
        """Seed every global generator of this process; our own draws never use them."""
        set_seed(seed + self.rank)

    def deal(self, num_prompts: int, *, sharded: bool) -> range:
        """Positions of this rank's prompts in a batch. UserError when some rank would have none.

        sharded: all must have the same number, because they gather weights together at every network call.
        """
        if num_prompts < self.world_size:
            raise UserError(
                f"{self.world_size} processes for training.num_prompts={num_prompts}: a group stays whole on one of "
                f"them, so at most {num_prompts} have work. Start fewer, or raise num_prompts."
            )
        if sharded and num_prompts % self.world_size:
            raise UserError(
                f"training.num_prompts={num_prompts} over {self.world_size} processes: with training.sharding=fsdp "
                "each has as many prompts as the others. Choose a number of processes that divides it."
            )
        return dealt(num_prompts, rank=self.rank, world_size=self.world_size)

    def prepare(self, network: torch.nn.Module, *, sharded: bool = False) -> torch.nn.Module:
        """The network on the device with its forward in the chosen precision; weights stay fp32.

        sharded: and split over all processes, if there are several. Otherwise gradients are left to
        `average_gradients`: one reduction per update instead of one per backward.
        """
        if sharded and self.world_size > 1:
            sharding.shard(network, self.device, self.world_size, bf16=self.precision == "bf16")
        return self.accelerator.prepare_model(
            network,
            device_placement=False if sharding.is_sharded(network) else None,
            evaluation_mode=True,
        )

    def unwrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network as it was before `prepare`."""
        return self.accelerator.unwrap_model(network)

    def passes(
        self, network: torch.nn.Module, parts: Sequence[Part], *, reduce_each: bool = False
    ) -> Iterator[tuple[Part, bool]]:
        """The parts of an update, each to go forward and backward once, and whether it counts.

        Where weights are sharded, every process makes as many passes as the one with most: it repeats its last
        part, which does not count. Gradients are summed over processes after the last, or, with reduce_each, after
        each: less memory, because no process holds whole gradients, for more traffic.
        """
        if not sharding.is_sharded(network):
            yield from ((part, True) for part in parts)
            return
        most = self._most(len(parts))
        for number in range(most):
            sharding.reduce_after_this_backward(network, reduce_each or number == most - 1)
            yield parts[min(number, len(parts) - 1)], number < len(parts)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Average the gradients over all processes, in one round; those of a sharded network already are."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world_size == 1 or any(sharding.has_parts(g) for g in gradients):
            return
        for members in buckets(gradients):
            flat = self.accelerator.reduce(torch.cat([g.flatten() for g in members]), "mean")
            for gradient, part in zip(
                members, flat.split([g.numel() for g in members]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def clip_gradients(self, parameters: Iterable[torch.nn.Parameter], max_norm: float) -> Tensor:
        """Scale all gradients together to `max_norm` at most; returns their norm before."""
        return sharding.whole(torch.nn.utils.clip_grad_norm_(parameters, max_norm))

    def combine(
        self, metrics: Mapping[str, float], *, share: float, maxima: Collection[str] = ()
    ) -> dict[str, float]:
        """Each metric of the whole run, in one gathering: weighted by the shares of the ranks, or the largest."""
        if self.world_size == 1:
            return dict(metrics)
        row = torch.tensor([share, *metrics.values()], dtype=torch.float64, device=self.device)
        rows = gather(row[None])
        mean = (rows[:, :1] * rows[:, 1:]).sum(0).tolist()
        largest = rows[:, 1:].amax(0).tolist()
        return {name: largest[k] if name in maxima else mean[k] for k, name in enumerate(metrics)}

    def any(self, fact: bool) -> bool:
        """Whether it holds in some process; all must ask."""
        return self._most(int(fact)) > 0

    def _most(self, number: int) -> int:
        if self.world_size == 1:
            return number
        return int(gather(torch.tensor([number], device=self.device)).max())

    def whole_weights(self, network: torch.nn.Module) -> dict[str, Tensor] | None:
        """All weights of a sharded network, on the main process's CPU; None where it is whole already."""
        if not sharding.is_sharded(network):
            return None
        return sharding.whole_weights(network, keep=self.is_main)

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def explain(self, error: Exception) -> UserError | None:
        """What a person should read of `error` in this process; None for a bug, which keeps its traceback."""
        who = f"process {self.rank} of {self.world_size}: " if self.world_size > 1 else ""
        if isinstance(error, UserError):
            return UserError(f"{who}{error}")
        lost = self.world_size > 1 and isinstance(error, RuntimeError)
        if lost and any(word in str(error) for word in LOST):
            return UserError(
                f"{who}lost another process, which ended or was silent for {PATIENCE}: its own message says why."
            )
        return None

    def start_tracking(self, project: str, config: Mapping[str, Any]) -> None:
        """Open the tracker that was asked for, if any."""
        if self.tracked:
            self.accelerator.init_trackers(project, config=dict(config))

    def track(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Hand one iteration's metrics to the tracker."""
        if self.tracked:
            self.accelerator.log(dict(metrics), step=iteration)

    def finish(self) -> None:
        """Close trackers and process groups."""
        self.accelerator.end_training()
