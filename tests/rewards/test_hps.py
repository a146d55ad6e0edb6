"""HPS v2.1 against the authors' own model, tokenizer and preprocessing, both backends, and what it refuses."""

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mixgrpo.errors import UserError
from mixgrpo.imports import import_module
from mixgrpo.rewards import hps_v2_1, load_reward
from mixgrpo.rewards._packages import hpsv2_open_clip
from tests.rewards.small_hps_v2_1 import make_hps_v2_1, open_clip_state

CPU = torch.device("cpu")
PROMPTS = ["a cat", "", "A photo, 8k: the dog&apos;s naïve café\n\ncolour", "word " * 500]
BACKENDS = ["package", "native"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_hps_v2_1(tmp_path_factory.mktemp("hps"))


def pictures(height: int, width: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (len(PROMPTS), height, width, 3))
    return [Image.fromarray(picture.astype("uint8")) for picture in pixels]


def tensors(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.tensor(np.array(i)).permute(2, 0, 1) for i in images]) / 255


def authors_model(state: dict[str, Tensor]) -> nn.Module:
    vision = {"image_size": 56, "layers": 2, "width": 128, "head_width": 64, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    model = hpsv2_open_clip().CLIP(64, vision, text, output_dict=True)
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def authors_scores(file: str, images: list[Image.Image]) -> Tensor:
    model = authors_model(torch.load(file, weights_only=True)["state_dict"])
    transform = import_module("hpsv2.src.open_clip.transform").image_transform
    preprocess = transform(56, is_train=False, resize_longest_max=True)
    pixels = torch.stack([preprocess(image) for image in images])
    out = model(pixels, hpsv2_open_clip().tokenize(PROMPTS))
    return (out["image_features"] @ out["text_features"].T).diagonal()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("height", "width"), [(56, 56), (90, 60), (44, 100), (100, 44), (20, 30), (64, 64)]
)
def test_score_is_what_the_authors_code_computes(file: str, backend: str, height: int, width: int):
    images = pictures(height, width)
    reward = load_reward("hps_v2_1", file, CPU, {"backend": backend})
    scores = reward.score(tensors(images), PROMPTS)
    assert scores == pytest.approx(authors_scores(file, images), abs=1e-5)
    assert scores.std() > 0.01


def test_the_whole_picture_counts(file: str):
    reward = load_reward("hps_v2_1", file, CPU)
    images = torch.rand(2, 3, 56, 112, generator=torch.Generator().manual_seed(0))
    images[1, :, :, 28:84] = images[0, :, :, 28:84]  # only what a crop would cut off differs
    left, right = reward.score(images, ["a cat"] * 2).tolist()
    assert abs(left - right) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.003), ("bfloat16", 0.02)])
def test_other_dtypes_are_close(file: str, backend: str, dtype: str, tolerance: float):
    images = tensors(pictures(56, 56))
    exact = load_reward("hps_v2_1", file, CPU).score(images, PROMPTS)
    options = {"backend": backend, "dtype": dtype}
    reward = load_reward("hps_v2_1", file, CPU, options)
    scores = reward.score(images, PROMPTS)
    assert (reward.facts["backend"], reward.facts["dtype"]) == (backend, dtype)
    assert scores == pytest.approx(exact, abs=tolerance)
    assert not torch.equal(scores, exact)


def test_facts_say_that_these_are_not_the_authors_weights(file: str):
    facts = load_reward("hps_v2_1", file, CPU).facts
    assert set(facts) == {"version", "checkpoint", "sha256", "scale", "backend", "dtype"}
    assert facts["version"].startswith("not HPS v2.1")
    assert facts["checkpoint"] == file
    assert len(facts["sha256"]) == 64


def test_facts_of_the_authors_weights(file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shutil.copy(file, tmp_path / "HPS_v2.1_compressed.pt")
    sha256 = load_reward("hps_v2_1", file, CPU).facts["sha256"]
    asked = []

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"wanted c57a38fb.*damaged or another version"):
        load_reward("hps_v2_1", None, CPU)
    hub = hps_v2_1.HubFile(*list(vars(hps_v2_1.HUB).values())[:3], sha256)
    monkeypatch.setattr(hps_v2_1, "HUB", hub)
    facts = load_reward("hps_v2_1", None, CPU).facts
    assert facts["version"] == "HPS v2.1"
    assert facts["checkpoint"] == f"HPS_v2.1_compressed.pt of xswu/HPSv2@{hub.revision}"
    assert asked == [("xswu/HPSv2", "HPS_v2.1_compressed.pt", hub.revision)] * 2


def test_v2_0_is_refused(file: str, tmp_path: Path):
    shutil.copy(file, tmp_path / "HPS_v2_compressed.pt")
    for path in (tmp_path, tmp_path / "HPS_v2_compressed.pt"):
        with pytest.raises(UserError, match=r"is HPS v2\.0.*wanted v2\.1"):
            load_reward("hps_v2_1", str(path), CPU)


def test_the_authors_name_needs_the_authors_checksum(file: str, tmp_path: Path):
    shutil.copy(file, tmp_path / "HPS_v2.1_compressed.pt")
    with pytest.raises(UserError, match=r"wanted c57a38fb.*damaged or another version"):
        load_reward("hps_v2_1", str(tmp_path), CPU)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_network_is_named(tmp_path: Path, backend: str):
    options = {"backend": backend}
    torch.save({"blip.text_encoder.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"of another network.*missing.*not known \(blip\.text"):
        load_reward("hps_v2_1", str(tmp_path / "other.pt"), CPU, options)
    torch.save(open_clip_state(width=768, layers=1, patch=16), tmp_path / "base.pt")
    with pytest.raises(UserError, match=r"1 layers, width 768, .*wanted ViT-H-14"):
        load_reward("hps_v2_1", str(tmp_path / "base.pt"), CPU, options)
    state = open_clip_state()
    state["token_embedding.weight"] = state["token_embedding.weight"][:4000]
    torch.save(state, tmp_path / "words.pt")
    with pytest.raises(UserError, match="has 4000 tokens, open_clip's tokenizer 49408"):
        load_reward("hps_v2_1", str(tmp_path / "words.pt"), CPU, options)


def test_an_unknown_backend_is_named(file: str):
    with pytest.raises(UserError, match="backend is 'hpsv2', wanted package or native"):
        load_reward("hps_v2_1", file, CPU, {"backend": "hpsv2"})


@pytest.mark.slow
def test_both_backends_agree_at_full_size(tmp_path: Path):
    sizes = {"width": 1280, "layers": 32, "grid": 16, "text_width": 1024, "text_layers": 24}
    file = tmp_path / "full.pt"
    torch.save({"state_dict": open_clip_state(**sizes, dtype=torch.float16)}, file)
    assert file.stat().st_size == pytest.approx(1_972_490_005, rel=1e-3)  # of the authors' file
    images = torch.rand(2, 3, 320, 256, generator=torch.Generator().manual_seed(0))
    scores = []
    for backend in BACKENDS:
        reward = load_reward("hps_v2_1", str(file), CPU, {"backend": backend})
        scores.append(reward.score(images, ["a red car", "a photo of a cat on a mat"]))
        assert sum(p.numel() for p in reward.reward.towers.model.parameters()) == 986_109_441
        del reward
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert scores[0].std() > 1e-4
