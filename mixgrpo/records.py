"""What the layers hand to each other: frozen dataclasses whose fields state shapes.

B images, P prompts, G images per prompt (a *group*), so B = P G in prompt-major order; C conditioning
tensors of a model; L the latent dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What a model is conditioned on: text embeddings made once by the `embed` stage. Each tensor is (B, ...)."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def take(self, index: Tensor) -> "Conditioning":
        """Rows `index` (N,)."""
        return Conditioning({name: tensor[index] for name, tensor in self.tensors.items()})

    def repeat_interleave(self, repeats: int) -> "Conditioning":
        """Each row `repeats` times, in place: (P, ...) -> (P G, ...)."""
        return Conditioning(
            {name: t.repeat_interleave(repeats, 0) for name, t in self.tensors.items()}
        )

    def to(self, device: torch.device) -> "Conditioning":
        """All tensors on `device`."""
        return Conditioning({name: tensor.to(device) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Prompt:
    """One row of a prompts file."""

    id: str
    text: str
    style: str
