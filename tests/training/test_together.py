"""As many images at a time as fit, and no more."""

import pytest
import torch

from mixgrpo.config import LoraConfig, ModelConfig, RewardConfig, Settings, TrainingConfig
from mixgrpo.errors import UserError
from mixgrpo.models import load_text_encoder
from mixgrpo.prompts import Embeddings, prompt_id, write_embeddings
from mixgrpo.provenance import ROOT
from mixgrpo.records import Prompt
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.together import as_they_fit

GPU = 10**9


@pytest.fixture
def settings() -> Settings:
    """FLUX.1-dev, as preset overhead measures it."""
    path = str(ROOT / "config/outlines/flux_dev")
    return Settings(
        preset="overhead",
        seed=0,
        dataset="words",
        model=ModelConfig(name="flux_random", path=path),
        rewards={"vit_random": RewardConfig()},
        training=TrainingConfig(lora=LoraConfig(rank=64, alpha=128)),
    )


@pytest.fixture
def cond(settings: Settings, tmp_path) -> Embeddings:
    prompts = [Prompt(prompt_id("words", "a fox"), "a fox", "none")]
    path = tmp_path / "embeddings.safetensors"
    write_embeddings(
        path, load_text_encoder(settings.model, torch.device("cpu"))(["a fox"]), prompts
    )
    return Embeddings(path, prompts)


@pytest.mark.parametrize(
    ("free", "micro_batch", "checkpointing"),
    [(139, 3, False), (80, 1, False), (48, 3, True)],
)
def test_what_fits(settings, cond, monkeypatch, capsys, free, micro_batch, checkpointing):
    """An H200, an H100, a GPU of 48 GB; rewards take nothing here."""
    monkeypatch.setattr("mixgrpo.training.trainer.available_bytes", lambda *_: free * GPU)
    fitting = as_they_fit({"mixgrpo": settings}, Distributed(), cond, free * GPU, [])["mixgrpo"]
    assert fitting.training.micro_batch == micro_batch
    assert fitting.training.gradient_checkpointing is checkpointing
    said = capsys.readouterr().err
    assert (f"Measuring what fits: micro_batch {micro_batch}" in said) == (free < 139)


def test_nothing_fits(settings, cond, monkeypatch):
    monkeypatch.setattr("mixgrpo.training.trainer.available_bytes", lambda *_: 20 * GPU)
    with pytest.raises(UserError, match="PRESET=overhead_small"):
        as_they_fit({"mixgrpo": settings}, Distributed(), cond, 20 * GPU, [])
