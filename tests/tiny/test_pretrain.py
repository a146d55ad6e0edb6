"""The `pretrain` stage: same bytes twice, whole or absent, and what it saves is what others load."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors import SafetensorError

from mixgrpo.errors import UserError
from mixgrpo.rewards import load_reward
from mixgrpo.tiny import judges
from mixgrpo.tiny.degrade import degrade
from mixgrpo.tiny.fit import seeded
from mixgrpo.tiny.flux_base import draw_samples
from mixgrpo.tiny.grammar import HELD_OUT_PAIRS, parse, sample_captions
from mixgrpo.tiny.pictures import for_generator, for_judges
from tests.tiny.worlds import STEPS, content, train


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("flux", tmp_path_factory.mktemp("flux"))


def test_the_base_model_is_the_same_bytes_twice(flux: Path, tmp_path: Path):
    torch.manual_seed(99)  # what happened before in the process does not matter
    assert content(train("flux", tmp_path)) == content(flux)


@pytest.mark.parametrize("component", ["tiny_hps", "tiny_unified"])
def test_a_judge_is_the_same_bytes_twice_and_others_with_another_seed(
    component: str, tmp_path: Path
):
    first = content(train(component, tmp_path / "a"))
    assert content(train(component, tmp_path / "b")) == first
    other = content(train(component, tmp_path / "c", seed=1))
    assert other["model.safetensors"] != first["model.safetensors"]
    assert other["config.json"] == first["config.json"]


def test_plain_diffusers_loads_the_base_model_and_draws(flux: Path):
    pipeline = FluxPipeline.from_pretrained(flux)
    captions = sample_captions("tiny_hpd", "test", 2)
    images = draw_samples(pipeline, captions, seed=3)
    assert images.shape == (2, 3, 32, 32)
    assert images.isfinite().all()
    assert torch.equal(images, draw_samples(pipeline, captions, seed=3))
    assert pipeline.transformer.config.guidance_embeds
    latents = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
    assert latents.shape == (2, 4, 8, 8)


def test_the_record_and_the_picture_lie_beside_the_weights(flux: Path):
    record = json.loads((flux / "pretrain.json").read_text())
    assert set(record) >= {"component", "autoencoder_psnr", "flow_loss", "seconds", "cpu_seconds"}
    with Image.open(flux / "samples.png") as picture:
        assert min(picture.size) > 900


def test_scaled_latents_have_mean_zero_and_deviation_one(flux: Path):
    vae = FluxPipeline.from_pretrained(flux).vae
    with seeded(0, "flux"):
        images = for_generator(STEPS["num_pictures"]).images
    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latent_dist.mean
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert scaled.mean().item() == pytest.approx(0, abs=1e-3)
    assert scaled.std().item() == pytest.approx(1, abs=1e-3)


def test_the_base_sees_no_held_out_pair_and_judges_see_all():
    held_out = {pair for pairs in HELD_OUT_PAIRS.values() for pair in pairs}

    def pairs(captions: list[str]) -> set[tuple[str, str]]:
        return {pair for caption in captions for pair in parse(caption).pairs}

    with seeded(0, "test"):
        assert not pairs(for_generator(1000).captions) & held_out
        assert pairs(for_judges(1000).captions) > held_out


def test_an_interrupted_training_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = content(train("tiny_unified", tmp_path))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(judges, "save_judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("tiny_unified", tmp_path, seed=1)
    assert content(tmp_path / "tiny_unified") == before
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["tiny_unified"]


def test_a_second_training_replaces_the_first_and_leaves_nothing_of_it(tmp_path: Path):
    (tmp_path / "tiny_unified").mkdir(parents=True)
    (tmp_path / "tiny_unified" / "stale.txt").write_text("old")
    output = train("tiny_unified", tmp_path)
    assert {file.name for file in output.iterdir()} == {
        "config.json",
        "model.safetensors",
        "pretrain.json",
    }


def test_an_unknown_component_lists_the_components(tmp_path: Path):
    with pytest.raises(UserError, match=r"'sd2' is no part.*flux, sd3, tiny_hps"):
        train("sd2", tmp_path)


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_a_disk_that_refuses_is_the_users_matter(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise error("No space left on device")

    monkeypatch.setattr(judges, "save_judge", full)
    with pytest.raises(UserError, match=r"tiny_unified: could not be written.*No space left"):
        train("tiny_unified", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("component", ["tiny_hps", "tiny_pick_score"])
def test_a_preference_clip_prefers_clean_pictures_and_right_captions(
    component: str, tmp_path: Path
):
    output = train(component, tmp_path, num_pictures=2000, clip_steps=100)
    reward = load_reward(component, str(output), torch.device("cpu"))
    with seeded(1, "unseen"):
        pictures = for_judges(200)
        spoiled, level = degrade(pictures.images)
    clean = reward.score(pictures.images, pictures.captions)
    bad = level > 0.5
    better = clean[bad] > reward.score(spoiled, pictures.captions)[bad]
    assert better.float().mean() > 0.8
    others = reward.score(pictures.images, pictures.captions[50:] + pictures.captions[:50])
    assert (clean > others).float().mean() > 0.9
