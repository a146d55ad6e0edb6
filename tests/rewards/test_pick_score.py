"""Pick Score against the authors' few lines over transformers, its files on the hub, and what it refuses."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from mixgrpo.errors import UserError
from mixgrpo.rewards import load_reward
from mixgrpo.rewards._clip import check_vit_h_14
from mixgrpo.rewards.pick_score import MODEL, MODEL_FILES, PROCESSOR, PROCESSOR_FILES
from tests.rewards.small_pick_score import make_pick_score

CPU = torch.device("cpu")
PROMPTS = ["a cat", "", "A red car, 8k: detailed!", "word " * 500]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_pick_score(tmp_path_factory.mktemp("pick_score")))


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pick_score"))


def pictures(height: int, width: int) -> list[Image.Image]:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(np.stack([x * k, y * k, (x + y) * k], -1) / 20) for k in (1, 2, 3, 4)]
    return [Image.fromarray((127 + 120 * wave).astype("uint8")) for wave in waves]


def tensors(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.tensor(np.array(i)).permute(2, 0, 1) for i in images]) / 255


@torch.no_grad()
def authors_scores(directory: Path, images: list[Image.Image]) -> Tensor:
    model = CLIPModel.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    processor = CLIPImageProcessorPil.from_pretrained(directory)
    texts = tokenizer(PROMPTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    out = model(**processor(images, return_tensors="pt"), **texts)
    return model.logit_scale.exp() * (out.text_embeds @ out.image_embeds.T).diagonal() / 100


@pytest.mark.parametrize(
    ("height", "width", "tolerance"), [(56, 56, 1e-5), (90, 60, 0.005), (41, 120, 0.005)]
)
def test_score_is_what_the_authors_code_computes(
    made: Path, height: int, width: int, tolerance: float
):
    images = pictures(height, width)
    scores = load_reward("pick_score", str(made), CPU).score(tensors(images), PROMPTS)
    assert scores == pytest.approx(authors_scores(made, images), abs=tolerance)
    assert scores.std() > 10 * tolerance


def test_the_learned_scale_counts_and_is_not_rounded(directory: Path):
    images = tensors(pictures(56, 56))
    exact = load_reward("pick_score", str(directory), CPU).score(images, PROMPTS)
    half = load_reward("pick_score", str(directory), CPU, {"dtype": "float16"})
    assert half.reward.scale == pytest.approx(np.exp(4.6052) / 100, rel=1e-6)
    rounded = half.score(images, PROMPTS)
    assert half.facts["dtype"] == "float16"
    assert rounded == pytest.approx(exact, abs=0.003)
    assert not torch.equal(rounded, exact)
    state = load_file(directory / "model.safetensors")
    state["logit_scale"] = torch.tensor(3.0)
    save_file(state, directory / "model.safetensors", {"format": "pt"})
    other = load_reward("pick_score", str(directory), CPU).score(images, PROMPTS)
    assert other == pytest.approx(exact * np.exp(3.0 - 4.6052), abs=1e-5)


def test_facts(made: Path):
    facts = load_reward("pick_score", str(made), CPU).facts
    assert set(facts) == {"version", "checkpoint", "sha256", "scale", "backend", "dtype"}
    assert facts["checkpoint"] == str(made)
    assert facts["scale"].startswith("exp(logit scale) * cosine / 100")


def test_from_the_hub_at_pinned_commits(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    processor = tmp_path / "processor"
    processor.mkdir()
    for name in PROCESSOR_FILES:
        if (directory / name).exists():
            shutil.move(directory / name, processor / name)
    asked = set()

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.add((repo, revision, name))
        return str((directory if repo == MODEL[0] else processor) / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    reward = load_reward("pick_score", None, CPU)
    assert asked == {(*MODEL, name) for name in MODEL_FILES} | {
        (*PROCESSOR, name) for name in PROCESSOR_FILES
    }
    assert reward.facts["version"] == "Pick Score v1"
    assert reward.facts["checkpoint"] == f"model.safetensors of {MODEL[0]}@{MODEL[1]}"
    images = tensors(pictures(56, 56))
    with pytest.raises(UserError, match=r"lacks preprocessor_config\.json.*option `processor`"):
        load_reward("pick_score", str(directory), CPU)
    local = load_reward("pick_score", str(directory), CPU, {"processor": str(processor)})
    assert torch.equal(local.score(images, PROMPTS), reward.score(images, PROMPTS))


def test_weights_that_lack_a_tensor_are_refused(directory: Path):
    state = load_file(directory / "model.safetensors")
    del state["text_model.final_layer_norm.bias"]
    save_file(state, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 tensors.*text_model\.final_layer_norm\.bias"):
        load_reward("pick_score", str(directory), CPU)


def test_positions_that_older_files_hold_do_no_harm(made: Path, directory: Path):
    images = tensors(pictures(56, 56))
    state = load_file(directory / "model.safetensors")
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(state, directory / "model.safetensors", {"format": "pt"})
    old, new = (load_reward("pick_score", str(path), CPU) for path in (directory, made))
    assert torch.equal(old.score(images, PROMPTS), new.score(images, PROMPTS))


def test_truncated_weights_are_refused(directory: Path):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be loaded.*download it again"):
        load_reward("pick_score", str(directory), CPU)


def test_a_config_of_another_size_is_refused(directory: Path):
    file = directory / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="lack 16 tensors that its config"):
        load_reward("pick_score", str(directory), CPU)


def test_published_sizes_other_than_vit_h_14_are_refused():
    check_vit_h_14("pick_score", "f", width=1280, layers=32, patch=14)
    check_vit_h_14("pick_score", "f", width=128, layers=2, patch=14)
    with pytest.raises(UserError, match="f is a vision transformer of 24 layers, width 1024"):
        check_vit_h_14("pick_score", "f", width=1024, layers=24, patch=14)


def test_a_missing_directory_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nothing does not exist.*yuvalkirstain/PickScore_v1"):
        load_reward("pick_score", str(tmp_path / "nothing"), CPU)
