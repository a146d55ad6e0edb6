import pytest
import torch

from mixgrpo.tiny import degrade, grammar
from mixgrpo.tiny.render import render


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    captions = grammar.sample_captions("tiny_hpd", "train", 240)
    generator = torch.Generator().manual_seed(0)
    return render([grammar.parse(caption) for caption in captions], generator)


def test_the_level_says_how_far_a_picture_is_from_clean(images: torch.Tensor):
    spoiled, level = degrade.degrade(images)
    error = (spoiled - images).abs().mean((1, 2, 3))
    assert torch.corrcoef(torch.stack([level, error]))[0, 1] > 0.5
    assert level.min() >= 0
    assert level.max() <= 1
    assert spoiled.min() >= 0
    assert spoiled.max() <= 1


def test_blur_follows_the_level_exactly(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(degrade, "WARP", 0.0)
    monkeypatch.setattr(degrade, "BLOTCH", 0.0)
    spoiled, level = degrade.degrade(images)
    blurred = degrade.blur(degrade.blur(images))
    expected = images + level[:, None, None, None] * (blurred - images)
    assert spoiled == pytest.approx(expected, abs=1e-4)


def test_augment_leaves_shape_and_mean(images: torch.Tensor):
    spoiled = degrade.augment(images)
    assert spoiled.shape == images.shape
    assert spoiled.mean().item() == pytest.approx(images.mean().item(), abs=0.01)
