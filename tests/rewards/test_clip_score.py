"""CLIP Score against open_clip's own network, and its three layouts of files."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.rewards import clip_score, load_reward
from mixgrpo.rewards._packages import hpsv2_open_clip
from tests.rewards.small_clip_score import CONFIG, MEAN, STD, make_clip_score
from tests.rewards.small_pick_score import make_pick_score

CPU = torch.device("cpu")
PROMPTS = ["a cat", "", "A red car, 8k: detailed!", "word " * 500]
WEIGHTS = "open_clip_pytorch_model.bin"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(make_clip_score(tmp_path / "clip_score"))


def pictures(height: int, width: int) -> list[Image.Image]:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(np.stack([x * k, y * k, (x + y) * k], -1) / 20) for k in (1, 2, 3, 4)]
    return [Image.fromarray((127 + 120 * wave).astype("uint8")) for wave in waves]


def tensors(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.tensor(np.array(i)).permute(2, 0, 1) for i in images]) / 255


@torch.no_grad()
def authors_scores(file: Path, images: list[Image.Image], model_cfg: dict[str, Any]) -> Tensor:
    """open_clip's network and tokenizer, from which hpsv2 is copied, and PIL's resizing to a square."""
    model = hpsv2_open_clip().CLIP(**model_cfg, output_dict=True).eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    squares = tensors([image.resize((70, 70), Image.Resampling.BICUBIC) for image in images])
    pixels = (squares - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    out = model(pixels, hpsv2_open_clip().tokenize(PROMPTS))
    return (out["image_features"] * out["text_features"]).sum(-1)


@pytest.mark.parametrize(
    ("height", "width", "tolerance"), [(70, 70, 1e-5), (90, 60, 0.005), (41, 120, 0.005)]
)
def test_score_is_what_open_clip_computes(
    directory: Path, height: int, width: int, tolerance: float
):
    images = pictures(height, width)
    scores = load_reward("clip_score", str(directory), CPU).score(tensors(images), PROMPTS)
    theirs = authors_scores(directory / WEIGHTS, images, CONFIG["model_cfg"])
    assert scores == pytest.approx(theirs, abs=tolerance)
    assert scores.std() > 10 * tolerance


def test_kind_of_gelu_and_heads_come_from_the_config(directory: Path):
    images = pictures(70, 70)
    model_cfg = CONFIG["model_cfg"] | {"quick_gelu": False}
    model_cfg["vision_cfg"] = model_cfg["vision_cfg"] | {"head_width": 32}
    (directory / "open_clip_config.json").write_text(json.dumps(CONFIG | {"model_cfg": model_cfg}))
    scores = load_reward("clip_score", str(directory), CPU).score(tensors(images), PROMPTS)
    theirs = authors_scores(directory / WEIGHTS, images, model_cfg)
    others = authors_scores(directory / WEIGHTS, images, CONFIG["model_cfg"])
    assert scores == pytest.approx(theirs, abs=1e-5)
    assert (scores - others).abs().max() > 1e-3


def test_every_layout_gives_the_same_scores(directory: Path, tmp_path: Path):
    images = tensors(pictures(90, 60))
    reward = load_reward("clip_score", str(directory), CPU)
    expected = reward.score(images, PROMPTS)
    file = load_reward("clip_score", str(directory / WEIGHTS), CPU)
    assert torch.equal(file.score(images, PROMPTS), expected)
    both = Path(make_pick_score(tmp_path / "both"))  # of transformers; open_clip's go before
    transformers_only = load_reward("clip_score", str(both), CPU).score(images, PROMPTS)
    assert not torch.allclose(transformers_only, expected, atol=1e-3)
    state = torch.load(directory / WEIGHTS, weights_only=True)
    save_file(state, both / "open_clip_model.safetensors")
    shutil.copy(directory / "open_clip_config.json", both)
    safe = load_reward("clip_score", str(both), CPU)
    assert torch.equal(safe.score(images, PROMPTS), expected)
    assert safe.facts["checkpoint"] == str(both / "open_clip_model.safetensors")


def test_a_transformers_directory_is_pick_score_without_its_scale(tmp_path: Path):
    directory = make_pick_score(tmp_path)
    images = tensors(pictures(90, 60))
    pick = load_reward("pick_score", directory, CPU)
    expected = pick.score(images, PROMPTS) / pick.reward.scale
    scores = load_reward("clip_score", directory, CPU).score(images, PROMPTS)
    assert scores == pytest.approx(expected, abs=1e-6)


def test_from_the_hub_at_a_pinned_commit(directory: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        return str(directory / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"wanted c07a17b5.*damaged or another version"):
        load_reward("clip_score", None, CPU)
    sha256 = load_reward("clip_score", str(directory), CPU).facts["sha256"]
    hub = clip_score.HubFile(clip_score.HUB.repo, clip_score.HUB.revision, WEIGHTS, sha256)
    monkeypatch.setattr(clip_score, "HUB", hub)
    facts = load_reward("clip_score", None, CPU).facts
    assert facts["version"] == "CLIP Score, DFN5B ViT-H-14-378"
    assert facts["checkpoint"] == f"{WEIGHTS} of {hub.repo}@{hub.revision}"
    assert asked == [
        (hub.repo, n, hub.revision) for n in (WEIGHTS, WEIGHTS, clip_score.open_clip.CONFIG)
    ]


def test_facts_of_other_weights(directory: Path):
    facts = load_reward("clip_score", str(directory), CPU).facts
    assert set(facts) == {"version", "checkpoint", "sha256", "scale", "backend", "dtype"}
    assert facts["version"] == "weights given by path"
    assert facts["scale"].startswith("cosine")


def test_missing_parts_are_named(directory: Path, tmp_path: Path):
    (directory / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"open_clip_config\.json cannot be read \(FileNotFound"):
        load_reward("clip_score", str(directory), CPU)
    with pytest.raises(UserError, match=r"lacks config\.json of transformers and open_clip_model"):
        load_reward("clip_score", str(tmp_path), CPU)
    with pytest.raises(UserError, match=r"no file .*nothing\.bin"):
        load_reward("clip_score", str(tmp_path / "nothing.bin"), CPU)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("model_cfg", "embed_dim", 512, r"are \(512, 128, 2, 70\), the weights .*\(64, 128, 2, 70"),
        ("preprocess_cfg", "resize_mode", "longest", "resize_mode 'longest'.*squash, shortest"),
        ("preprocess_cfg", "interpolation", "bilinear", "interpolation 'bilinear'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    directory: Path, part: str, key: str, value: object, said: str
):
    file = directory / "open_clip_config.json"
    file.write_text(json.dumps(CONFIG | {part: CONFIG[part] | {key: value}}))
    with pytest.raises(UserError, match=said):
        load_reward("clip_score", str(directory), CPU)


def test_truncated_weights_are_refused(directory: Path):
    file = directory / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"open_clip_pytorch_model\.bin is truncated"):
        load_reward("clip_score", str(directory), CPU)
