"""Small checkpoints in the published layout, made once, and policies that differ from their base."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mixgrpo.config import ModelConfig
from mixgrpo.models import Policy
from tests.models.small import RESOLUTION, small_flux, small_sd3


@dataclass(frozen=True)
class Small:
    """A small FLUX.1-dev or SD3.5-M on disk."""

    name: str
    path: Path

    def config(self, **changes) -> ModelConfig:
        """As a preset would name it."""
        guidance = {"flux": 3.5, "sd3": 4.5}[self.name]
        facts = {"name": self.name, "path": str(self.path), "resolution": RESOLUTION}
        return ModelConfig(**(facts | {"guidance": guidance} | changes))


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small("flux", small_flux(tmp_path_factory.mktemp("small") / "flux"))


@pytest.fixture(scope="session")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small("sd3", small_sd3(tmp_path_factory.mktemp("small") / "sd3"))


@pytest.fixture(params=["flux", "sd3"])
def small(request: pytest.FixtureRequest) -> Small:
    """Each of the two."""
    return request.getfixturevalue(request.param)


def change_weights(policy: Policy) -> None:
    """As training would, enough to be seen in a picture."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
