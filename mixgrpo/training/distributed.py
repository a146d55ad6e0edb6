"""The one file that knows processes and accelerate: device, precision, rank, reductions, trackers.

Prompts are spread over ranks with groups kept whole; gradients are averaged once per update.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed


class Distributed:
    """This process among all that train together; `torchrun` or `accelerate launch` starts several."""

    def __init__(
        self,
        *,
        precision: Literal["no", "bf16"] = "no",
        tracker: str | None = None,
        project_dir: Path | None = None,
    ) -> None:
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # else several CPU processes do not find each other
            mixed_precision=precision,
            log_with=tracker,
            project_dir=project_dir,
        )
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

    def seed(self, seed: int) -> None:
        """Seed every global generator of this process; our own draws never use them."""
        set_seed(seed + self.rank)

    def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network on the device with its forward in the chosen precision; weights stay fp32.

        Gradients are left to `average_gradients`: one reduction per update instead of one per backward.
        """
        return self.accelerator.prepare_model(network, evaluation_mode=True)

    def unwrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network as it was before `prepare`."""
        return self.accelerator.unwrap_model(network)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Average the gradients over all processes, in one reduction."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def mean(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Each metric averaged over the processes, in one reduction."""
        if self.world_size == 1:
            return dict(metrics)
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.device)
        mean = self.accelerator.reduce(values, "mean").tolist()
        return dict(zip(metrics, mean, strict=True))

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

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
