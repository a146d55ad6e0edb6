"""The second base model: SD3.5's layout, shared autoencoder, captions that can be left out."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from mixgrpo.errors import UserError
from mixgrpo.tiny.grammar import sample_captions
from mixgrpo.tiny.sd3_base import draw_samples, encode_text
from mixgrpo.tiny.text import token_ids
from tests.tiny.worlds import content, train

LONGEST = "purple triangle and orange diamond on white"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    train("flux", path)
    return path


@pytest.fixture(scope="module")
def sd3(root: Path) -> Path:
    return train("sd3", root)


@pytest.fixture(scope="module")
def pipeline(sd3: Path) -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline.from_pretrained(sd3, local_files_only=True)


def test_plain_diffusers_loads_it_and_draws(pipeline: StableDiffusion3Pipeline):
    captions = sample_captions("tiny_hpd", "test", 2)
    images = draw_samples(pipeline, captions, seed=3)
    assert images.shape == (2, 3, 32, 32)
    assert images.isfinite().all()
    assert torch.equal(images, draw_samples(pipeline, captions, seed=3))
    config = pipeline.transformer.config
    assert (config.qk_norm, list(config.dual_attention_layers)) == ("rms_norm", [0, 1])
    assert pipeline.scheduler.config.shift == 3.0


def test_the_autoencoder_is_that_of_flux(root: Path, sd3: Path):
    flux_vae, vae = content(root / "flux" / "vae"), content(sd3 / "vae")
    assert vae == flux_vae  # the config too: no path of this machine is written into it
    assert json.loads(vae["config.json"])["scaling_factor"] != 1


def test_training_embeds_text_as_the_pipeline_does(pipeline: StableDiffusion3Pipeline):
    texts = [LONGEST, ""]
    states, _, pooled, _ = pipeline.encode_prompt(
        texts,
        None,
        None,
        do_classifier_free_guidance=False,
        max_sequence_length=pipeline.tokenizer_3.model_max_length,
    )
    ids = [token_ids(t, texts) for t in (pipeline.tokenizer, pipeline.tokenizer_3)]
    own_states, own_pooled = encode_text(pipeline, *ids)
    assert torch.equal(own_states, states)
    assert torch.equal(own_pooled, pooled)
    assert states.shape == (2, 9 + 8, 64)
    assert states[:, :9, 48:].eq(0).all()  # both CLIPs are narrower than T5, as in SD3.5
    assert pooled.shape == (2, 48)


def test_a_caption_fills_clip_and_the_empty_one_is_start_and_end(
    pipeline: StableDiffusion3Pipeline,
):
    tokenizer = pipeline.tokenizer
    full, empty = token_ids(tokenizer, [LONGEST, ""])
    assert tokenizer.decode(full, skip_special_tokens=True).strip() == LONGEST
    assert empty.tolist() == [tokenizer.bos_token_id] + 8 * [tokenizer.eos_token_id]


def test_the_same_bytes_twice(root: Path, sd3: Path, tmp_path: Path):
    (tmp_path / "flux").symlink_to(root / "flux")
    torch.manual_seed(99)  # what happened before in the process does not matter
    assert content(train("sd3", tmp_path)) == content(sd3)


def test_the_record_and_the_picture_lie_beside_the_weights(sd3: Path):
    record = json.loads((sd3 / "pretrain.json").read_text())
    assert set(record) >= {"component", "flow_loss", "seconds", "cpu_seconds"}
    with Image.open(sd3 / "samples.png") as picture:
        assert min(picture.size) > 900


def test_without_flux_it_says_what_to_make_first(tmp_path: Path):
    with pytest.raises(UserError, match=r"flux/vae cannot be loaded.*--component flux"):
        train("sd3", tmp_path)
    assert not (tmp_path / "sd3").exists()


def test_a_truncated_autoencoder_is_named(root: Path, tmp_path: Path):
    shutil.copytree(root / "flux" / "vae", tmp_path / "flux" / "vae")
    weights = tmp_path / "flux" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"flux/vae cannot be loaded"):
        train("sd3", tmp_path)
