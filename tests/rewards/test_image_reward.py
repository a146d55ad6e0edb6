"""ImageReward: the authors' package and transformers' classes agree on files of the authors' format.

Longer than 300 lines: both backends are held to the same checkpoints.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.rewards import image_reward
from mixgrpo.rewards._blip import PUBLISHED, preprocess
from mixgrpo.rewards._checkpoints import HubFile
from mixgrpo.rewards._packages import image_reward_package
from mixgrpo.rewards.image_reward import BACKENDS, ImageReward, PackageNetwork, load
from tests.rewards.small_image_reward import (
    FULL_MED_CONFIG,
    MED_CONFIG,
    SIZE,
    WORDS,
    make_image_reward,
    random_weights,
    save,
)

CPU = torch.device("cpu")
PROMPTS = ["a red cat", "the dog, the cat! " * 60, "", "a red cat", "qux [ENC] 0"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_image_reward(tmp_path_factory.mktemp("image_reward")))


@pytest.fixture(scope="module")
def rewards(directory: Path) -> dict[str, ImageReward]:
    return {backend: load(str(directory), CPU, backend=backend) for backend in BACKENDS}


def pictures(height: int, width: int, num: int = len(PROMPTS)) -> list[Image.Image]:
    """Smooth ones: sharp edges overshoot in bicubic resizing, where the authors' path rounds and cuts."""
    y, x = np.mgrid[:height, :width]
    planes = [
        np.stack([np.sin(x / 9 + i), np.cos(y / 7 - i), np.sin((x + y) / 11 + 2 * i)], -1)
        for i in range(num)
    ]
    return [Image.fromarray((127 + 90 * plane).astype("uint8")) for plane in planes]


def tensors(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.tensor(np.array(i)).permute(2, 0, 1) for i in images]) / 255


def theirs(reward: ImageReward, images: list[Image.Image]) -> list[float]:
    """What the package's own `score` says, one picture at a time, its preprocessing made for the small network."""
    assert isinstance(reward.network, PackageNetwork)
    model = reward.network.model
    model.preprocess = sys.modules["ImageReward.ImageReward"]._transform(reward.size)
    return [model.score(prompt, image) for prompt, image in zip(PROMPTS, images, strict=True)]


@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (64, 97), (131, 80), (40, 30)])
def test_both_backends_agree(rewards: dict[str, ImageReward], shape: tuple[int, int]):
    images = tensors(pictures(*shape))
    package, native = (rewards[backend].score(images, PROMPTS) for backend in BACKENDS)
    assert package == pytest.approx(native, abs=1e-5)
    assert package.dtype == native.dtype == torch.float32
    assert package.std() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_are_those_of_the_package(rewards: dict[str, ImageReward], backend: str):
    images = pictures(64, 64)
    expected = theirs(rewards["package"], images)
    assert rewards[backend].score(tensors(images), PROMPTS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(96, 96), (64, 97), (64, 99), (131, 80), (200, 70), (40, 30)])
def test_resizing_is_the_package_s_but_for_its_rounding_to_8_bits(
    rewards: dict[str, ImageReward], shape: tuple[int, int]
):
    images = pictures(*shape)
    expected = theirs(rewards["package"], images)
    pixels = torch.stack([rewards["package"].network.model.preprocess(i) for i in images])
    ours = preprocess(tensors(images), SIZE.image)
    assert ours.shape == pixels.shape
    assert ours == pytest.approx(pixels, abs=0.02)  # half of 1/255 is 0.007 after division by std
    assert rewards["native"].score(tensors(images), PROMPTS) == pytest.approx(expected, abs=0.01)


def test_a_picture_is_scored_with_its_own_prompt_only(rewards: dict[str, ImageReward]):
    images = tensors(pictures(64, 64))
    for reward in rewards.values():
        whole = reward.score(images, PROMPTS)
        for i, prompt in enumerate(PROMPTS):
            assert reward.score(images[i : i + 1], [prompt]) == pytest.approx(
                whole[i : i + 1], abs=1e-5
            )
        swapped = reward.score(images, PROMPTS[::-1])
        assert not torch.allclose(swapped[:2], whole[:2], atol=1e-3)


def test_more_pictures_than_one_pass_takes(
    rewards: dict[str, ImageReward], monkeypatch: pytest.MonkeyPatch
):
    images = tensors(pictures(64, 64))
    whole = rewards["package"].score(images, PROMPTS)
    sizes: list[int] = []
    network = rewards["package"].network
    monkeypatch.setattr(image_reward, "BATCH", 2)
    hook = network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert rewards["package"].score(images, PROMPTS) == pytest.approx(whole, abs=1e-5)
    hook.remove()
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_is_near_and_ends_in_fp32(
    directory: Path, rewards: dict[str, ImageReward], dtype: str
):
    images = tensors(pictures(64, 64))
    expected = rewards["native"].score(images, PROMPTS)
    for backend in BACKENDS:
        reward = load(str(directory), CPU, backend=backend, dtype=dtype)
        scores = reward.score(images, PROMPTS)
        assert scores.dtype == torch.float32
        assert scores == pytest.approx(expected, abs=0.05)
        assert not torch.equal(scores, expected)
        assert {p.dtype for p in reward.network.mlp.parameters()} == {torch.float32}


def test_prompts_end_after_35_tokens(rewards: dict[str, ImageReward]):
    images = tensors(pictures(64, 64, 3))
    kept = " ".join(["cat"] * 33)  # and [CLS], [SEP]
    for reward in rewards.values():
        texts = [kept, kept + " dog", kept[:-4]]
        scores = reward.score(images[:1].expand(3, -1, -1, -1), texts).tolist()
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        assert scores[0] != pytest.approx(scores[2], abs=1e-4)


def test_facts(directory: Path, rewards: dict[str, ImageReward]):
    facts = rewards["native"].facts
    assert facts["version"] == "not ImageReward v1.0: another size"
    assert facts["checkpoint"] == str(directory / "ImageReward.pt")
    assert len(facts["sha256"]) == 64
    assert facts["backend"] == "native"
    assert facts | {"backend": "package"} == rewards["package"].facts


def test_a_file_is_as_good_as_its_directory(directory: Path, rewards: dict[str, ImageReward]):
    images = tensors(pictures(64, 64))
    reward = load(str(directory / "ImageReward.pt"), CPU, backend="native")
    assert torch.equal(reward.score(images, PROMPTS), rewards["native"].score(images, PROMPTS))


def test_from_the_hub_every_file_has_a_pinned_revision(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[HubFile] = []

    def download(reward: str, hub: HubFile) -> Path:
        asked.append(hub)
        return directory / hub.name

    monkeypatch.setattr("mixgrpo.rewards._checkpoints.download", download)
    vocabulary = HubFile(
        *(getattr(image_reward.VOCABULARY, f) for f in ("repo", "revision", "name"))
    )
    monkeypatch.setattr(image_reward, "VOCABULARY", vocabulary)  # its checksum is the real file's
    reward = load(None, CPU, backend="native")
    assert [hub.name for hub in asked] == ["ImageReward.pt", "med_config.json", "vocab.txt"]
    assert all(len(hub.revision) == 40 for hub in asked)
    assert asked[0].revision in reward.facts["checkpoint"]


def test_another_vocabulary_than_the_pinned_one_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "mixgrpo.rewards._checkpoints.download", lambda reward, hub: directory / hub.name
    )
    with pytest.raises(UserError, match=r"vocab\.txt has sha256 .*, wanted 07eced375cec"):
        load(None, CPU)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "lacks",
    ["mlp.layers.7.weight", "blip.text_encoder.encoder.layer.1.crossattention.self.key.bias"],
)
def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path, backend: str, lacks: str):
    weights = random_weights(SIZE, MED_CONFIG)
    del weights[lacks]
    save(tmp_path, weights, MED_CONFIG)
    with pytest.raises(
        UserError, match=r"image_reward: .*ImageReward\.pt is of another network: .* 1 are"
    ):
        load(str(tmp_path), CPU, backend=backend)


def test_weights_of_a_clip_are_refused(tmp_path: Path):
    save(tmp_path, {"visual.conv1.weight": torch.zeros(2)}, MED_CONFIG)
    with pytest.raises(UserError, match=r"another network: .* 4 are missing .*visual\.conv1"):
        load(str(tmp_path), CPU)


def test_what_no_score_depends_on_may_be_there_or_not(
    tmp_path: Path, rewards: dict[str, ImageReward]
):
    weights = random_weights(SIZE, MED_CONFIG) | {"blip.queue": torch.zeros(3)}
    for name in ("blip.vision_proj.weight", "blip.text_encoder.embeddings.position_ids"):
        del weights[name]
    save(tmp_path, weights, MED_CONFIG)
    images = tensors(pictures(64, 64))
    for backend, reward in rewards.items():
        scores = load(str(tmp_path), CPU, backend=backend).score(images, PROMPTS)
        assert torch.equal(scores, reward.score(images, PROMPTS))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_that_do_not_fit_are_named(tmp_path: Path, backend: str):
    save(tmp_path, random_weights(SIZE, MED_CONFIG), MED_CONFIG | {"intermediate_size": 128})
    with pytest.raises(
        UserError, match=r"not of the sizes in med_config\.json \(size mismatch for .*768, 256"
    ):
        load(str(tmp_path), CPU, backend=backend)
    save(tmp_path, random_weights(SIZE, MED_CONFIG), MED_CONFIG | {"vocab_size": 30524})
    with pytest.raises(UserError, match=f"knows {len(WORDS) + 2} tokens .* says 30524"):
        load(str(tmp_path), CPU, backend=backend)
    save(tmp_path, random_weights(SIZE, MED_CONFIG), MED_CONFIG, words=[*WORDS, "bird"])
    with pytest.raises(UserError, match=rf"{len(WORDS) + 2} tokens, vocab\.txt {len(WORDS) + 3}"):
        load(str(tmp_path), CPU, backend=backend)


def test_a_med_config_without_a_size_is_refused(tmp_path: Path):
    make_image_reward(tmp_path)
    kept = {key: MED_CONFIG[key] for key in MED_CONFIG if key != "hidden_act"}
    (tmp_path / "med_config.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"med_config\.json lacks hidden_act"):
        load(str(tmp_path), CPU)
    for text in ("[1]", "{", ""):
        (tmp_path / "med_config.json").write_text(text)
        with pytest.raises(UserError, match=r"med_config\.json is no JSON object"):
            load(str(tmp_path), CPU)
    (tmp_path / "med_config.json").unlink()
    with pytest.raises(
        UserError, match=r"no file .*med_config\.json.*hf download zai-org/ImageReward"
    ):
        load(str(tmp_path), CPU)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path):
    make_image_reward(tmp_path)
    file = tmp_path / "ImageReward.pt"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"ImageReward\.pt is truncated"):
        load(str(tmp_path), CPU)


def test_options_that_there_are(directory: Path):
    with pytest.raises(UserError, match="backend is 'theirs', wanted one of package, native"):
        load(str(directory), CPU, backend="theirs")
    with pytest.raises(UserError, match="dtype is 'fp32'"):
        load(str(directory), CPU, dtype="fp32")


def test_the_native_backend_needs_no_package(directory: Path, monkeypatch: pytest.MonkeyPatch):
    find = image_reward_package.__globals__["importlib"].util.find_spec
    for name in [m for m in sys.modules if m.split(".")[0] in ("ImageReward", "timm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "ImageReward" else find(name)
    )
    assert load(str(directory), CPU, backend="native").score(
        torch.rand(1, 3, 64, 64), ["a"]
    ).shape == (1,)
    with pytest.raises(UserError, match=r"package image-reward is not installed.*backend: native"):
        load(str(directory), CPU)


@pytest.mark.slow
def test_at_full_size_both_backends_agree(tmp_path: Path):
    """447 million parameters, 1.8 GB: the names, shapes and sizes of the real file."""
    weights = random_weights(PUBLISHED, FULL_MED_CONFIG)
    assert sum(w.numel() for n, w in weights.items() if "position_ids" not in n) == 446_665_953
    words = WORDS + [f"word{i}" for i in range(30522 - len(WORDS))]
    save(tmp_path, weights, FULL_MED_CONFIG, words)
    del weights
    images = tensors(pictures(256, 224, 2))
    scores = []
    for backend in BACKENDS:
        reward = load(str(tmp_path), CPU, backend=backend)
        assert reward.size == 224
        scores.append(reward.score(images, PROMPTS[:2]).tolist())
    assert reward.facts["version"] == "ImageReward v1.0"
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert scores[0][0] != pytest.approx(scores[0][1], abs=1e-3)
