"""The cosine rewards against transformers' own arithmetic, and what they refuse to load."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from mixgrpo.errors import UserError
from mixgrpo.rewards import _clip as clip
from mixgrpo.rewards import load_reward
from mixgrpo.rewards._clip import Preprocessing, load_clip, read_preprocessing
from mixgrpo.tiny.grammar import parse, sample_captions
from mixgrpo.tiny.render import render

CPU = torch.device("cpu")
PROMPTS = sample_captions("tiny_hpd", "train", 6)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    pictures = render([parse(prompt) for prompt in PROMPTS], generator)
    return (pictures * 255).round() / 255


@pytest.mark.parametrize("name", ["tiny_hps", "tiny_pick_score", "tiny_clip_score"])
def test_score_is_what_transformers_computes(
    name: str, weights: dict[str, str | None], images: torch.Tensor
):
    directory = str(weights[name])
    model = CLIPModel.from_pretrained(directory)
    tokens = AutoTokenizer.from_pretrained(directory)(
        PROMPTS, padding="max_length", return_tensors="pt"
    )
    pictures = [(image.permute(1, 2, 0).numpy() * 255).round().astype("uint8") for image in images]
    processor = CLIPImageProcessorPil.from_pretrained(directory)
    pixels = processor([Image.fromarray(p) for p in pictures], return_tensors="pt").pixel_values
    with torch.no_grad():
        out = model(**tokens, pixel_values=pixels)
    cosine = (out.image_embeds * out.text_embeds).sum(-1)
    scale = model.logit_scale.exp().item() / 100 if name == "tiny_pick_score" else 1.0
    scores = load_reward(name, directory, CPU).score(images, PROMPTS)
    assert scores == pytest.approx(scale * cosine, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (70, 48), (40, 90), (20, 30)])
def test_preprocessing_is_that_of_the_image_processor(tmp_path: Path, height: int, width: int):
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    for size, crop in (({"shortest_edge": 32}, True), ({"height": 32, "width": 32}, False)):
        processor = CLIPImageProcessorPil(
            size=size,
            crop_size={"height": 32, "width": 32},
            do_center_crop=crop,
            image_mean=mean,
            image_std=std,
        )
        processor.save_pretrained(tmp_path)
        y, x = np.mgrid[:height, :width]
        picture = np.stack([4 * x, 3 * y, x + y], -1).clip(0, 255).astype("uint8")
        theirs = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
        ours = read_preprocessing(tmp_path)(torch.tensor(picture).permute(2, 0, 1)[None] / 255)
        assert ours.shape == theirs.shape == (1, 3, 32, 32)
        assert ours == pytest.approx(theirs, abs=0.03)  # theirs rounds to 8 bits after resizing


def test_sizes_as_older_files_write_them(tmp_path: Path):
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(values | {"size": 36, "crop_size": 32}))
    assert read_preprocessing(tmp_path) == Preprocessing(
        (32, 32), "crop", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 36
    )


def test_preprocessing_only_normalises_what_has_the_size():
    preprocessing = Preprocessing((32, 32), "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = torch.rand(2, 3, 32, 32)
    assert preprocessing(images) == pytest.approx(images * 2 - 1, abs=1e-6)


def test_each_prompt_is_embedded_once(
    weights: dict[str, str | None], images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    reward = load_clip("tiny_hps", Path(str(weights["tiny_hps"])), CPU, version="tiny world")
    embedded: list[str] = []
    embed = reward._embed
    monkeypatch.setattr(reward, "_embed", lambda text: embedded.append(text) or embed(text))
    reward.score(images, [PROMPTS[0]] * 4 + [PROMPTS[1]] * 2)
    reward.score(images, PROMPTS[:2] * 3)
    assert sorted(embedded) == sorted(PROMPTS[:2])


def test_what_was_scored_before_changes_no_bit(
    weights: dict[str, str | None], images: torch.Tensor
):
    """A training that is resumed begins with an empty cache."""
    rewards = [
        load_clip("tiny_hps", Path(str(weights["tiny_hps"])), CPU, version="tiny world")
        for _ in range(2)
    ]
    for number in range(1, len(PROMPTS)):
        rewards[0].score(images[:number], PROMPTS[:number])
    scores = [reward.score(images, PROMPTS) for reward in rewards]
    assert torch.equal(*scores)


def test_the_cache_stays_small_and_right(
    weights: dict[str, str | None], images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clip, "MAX_CACHED_PROMPTS", 4)
    reward = load_clip("tiny_hps", Path(str(weights["tiny_hps"])), CPU, version="tiny world")
    expected = reward.score(images, PROMPTS)
    reward.score(images[:3], PROMPTS[:3])
    reward.score(images[:3], PROMPTS[3:])
    assert len(reward.cache) <= 4
    assert torch.equal(reward.score(images, PROMPTS), expected)


@pytest.mark.parametrize(
    "missing",
    ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "config.json"],
)
def test_a_directory_without_a_part_is_refused(
    weights: dict[str, str | None], tmp_path: Path, missing: str
):
    shutil.copytree(str(weights["tiny_hps"]), tmp_path, dirs_exist_ok=True)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"lacks {missing}"):
        load_reward("tiny_hps", str(tmp_path), CPU)


def test_truncated_weights_are_refused(weights: dict[str, str | None], tmp_path: Path):
    shutil.copytree(str(weights["tiny_hps"]), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_reward("tiny_hps", str(tmp_path), CPU)


def test_a_tokenizer_of_another_model_is_refused(weights: dict[str, str | None], tmp_path: Path):
    shutil.copytree(str(weights["tiny_hps"]), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer.json"
    data = json.loads(file.read_text())
    data["added_tokens"].append(data["added_tokens"][0] | {"id": 999, "content": "<extra>"})
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match="belong to different models"):
        load_reward("tiny_hps", str(tmp_path), CPU)


def test_another_way_of_resizing_is_refused(weights: dict[str, str | None], tmp_path: Path):
    shutil.copytree(str(weights["tiny_hps"]), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"resample": 2}))
    with pytest.raises(UserError, match="resample=2, wanted 3, bicubic"):
        load_reward("tiny_hps", str(tmp_path), CPU)
