"""What the layers hand to each other: frozen dataclasses whose fields state shapes.

B images, P prompts, G images per prompt (a *group*), so B = P G in prompt-major order; C conditioning
tensors of a model; L the latent dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What a model is conditioned on: text embeddings made once by the `embed` stage."""

    tensors: Mapping[str, Tensor]
    """By name, (B, ...): a row for each image or prompt."""
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    """By name, (1, ...): the same for all rows, such as the embedding of the empty prompt."""

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def take(self, index: Tensor) -> "Conditioning":
        """Rows `index` (N,)."""
        return Conditioning({n: tensor[index] for n, tensor in self.tensors.items()}, self.shared)

    def repeat_interleave(self, repeats: int) -> "Conditioning":
        """Each row `repeats` times, in place: (P, ...) -> (P G, ...)."""
        rows = {n: tensor.repeat_interleave(repeats, 0) for n, tensor in self.tensors.items()}
        return Conditioning(rows, self.shared)

    def to(self, device: torch.device) -> "Conditioning":
        """All tensors on `device`."""
        rows = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Conditioning(rows, {n: tensor.to(device) for n, tensor in self.shared.items()})


@dataclass(frozen=True)
class Prompt:
    """One row of a prompts file."""

    id: str
    text: str
    style: str
