"""A reward whose weights wait in host memory, and are on the training device only while it scores.

Between its turns the device has room for what sampling and updates need. What it costs is a copy of the weights to
the device for every scoring; nothing is copied back.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mixgrpo.errors import UserError


class Offloaded:
    """`reward`, with its weights in host memory between its scores; they are the same to the last bit."""

    def __init__(self, name: str, reward: Any, device: torch.device) -> None:
        modules: Sequence[torch.nn.Module] = getattr(reward, "modules", ())
        if not modules:
            raise UserError(
                f"reward {name} has no weights on this machine that could wait in host memory. Take {name}=offload "
                "out of MIXGRPO_REWARDS."
            )
        self.name, self.reward, self.device = name, reward, device
        tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
        self.weights = [(tensor, tensor.data.cpu()) for tensor in tensors]
        """Each, and its values on the host."""
        self._leave()

    @property
    def facts(self) -> dict[str, str]:
        """What the reward says of itself."""
        return dict(getattr(self.reward, "facts", {}))

    @property
    def visiting_bytes(self) -> int:
        """What the weights take on the device while it scores."""
        return sum(host.nbytes for _, host in self.weights)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Reward.score`."""
        with self._on_device():
            return self.reward.score(images, prompts)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        try:
            for tensor, host in self.weights:
                tensor.data = host.to(self.device, copy=True)
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        for tensor, host in self.weights:
            tensor.data = host
