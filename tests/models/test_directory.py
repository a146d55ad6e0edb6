"""A model directory that is not what was wanted is named before anything of it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.models import load_policy, load_text_encoder
from mixgrpo.models._directory import identity
from tests.models.conftest import Small

CPU = torch.device("cpu")
LORA = LoraConfig(rank=4, alpha=8)


@pytest.fixture
def copy(flux: Small, tmp_path: Path) -> Small:
    """A FLUX.1-dev to spoil."""
    return Small("flux", Path(shutil.copytree(flux.path, tmp_path / "flux")))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_another_family_is_named(flux: Small, sd3: Small):
    with pytest.raises(
        UserError,
        match=r"of another model family: model_index.json says StableDiffusion3Pipeline, wanted FluxPipeline",
    ):
        load_policy(flux.config(path=str(sd3.path)), CPU)
    with pytest.raises(UserError, match=r"FluxPipeline, wanted StableDiffusion3Pipeline.*SD3\.5"):
        load_text_encoder(sd3.config(path=str(flux.path)), CPU)


def test_without_an_index_the_transformer_tells(sd3: Small, tmp_path: Path):
    path = Path(shutil.copytree(sd3.path, tmp_path / "sd3"))
    (path / "model_index.json").unlink()
    load_policy(sd3.config(path=str(path)), CPU)
    with pytest.raises(UserError, match=r"config.json says SD3Transformer2DModel, wanted FluxTra"):
        load_policy(sd3.config(name="flux", path=str(path)), CPU)


def test_relatives_of_flux_dev_are_named(copy: Small):
    config = copy.path / "transformer" / "config.json"
    edit(config, guidance_embeds=False)
    with pytest.raises(UserError, match=r"no embedded guidance.*schnell.*Wanted black-forest"):
        load_policy(copy.config(), CPU)
    edit(config, guidance_embeds=True, in_channels=384)
    with pytest.raises(
        UserError, match=r"takes 384 channels, the packed latents of its VAE have 64"
    ):
        load_policy(copy.config(), CPU)


def test_a_missing_directory_says_what_else_it_may_be(tmp_path: Path):
    config = ModelConfig(name="flux", path=str(tmp_path / "no"))
    with pytest.raises(UserError, match=r"does not exist.*correct model.path.$"):
        load_policy(config, CPU)
    config = ModelConfig(name="flux", path="someone/FLUX")
    with pytest.raises(UserError, match=r"or set `revision` if it is a name on the hub"):
        load_policy(config, CPU)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (
            "transformer/diffusion_pytorch_model-00002-of-00004.safetensors",
            "transformer/diffusion_pytorch_model-00002-of-00004.safetensors",
        ),
        ("vae/config.json", "vae/config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
        ("transformer/diffusion_pytorch_model.safetensors.index.json", "transformer/"),
    ],
)
def test_what_an_interrupted_download_left_out_is_named(copy: Small, lost: str, said: str):
    (copy.path / lost).unlink()
    with pytest.raises(
        UserError, match=rf"it lacks {said}.*goes on with `hf download black-forest-labs/FLUX"
    ):
        load_policy(copy.config(), CPU)


@pytest.mark.parametrize(
    "lost",
    ["tokenizer_2/spiece.model", "tokenizer/merges.txt", "scheduler/scheduler_config.json"],
)
def test_training_needs_no_text_encoder_and_embedding_no_network(copy: Small, lost: str):
    (copy.path / lost).unlink()
    load_policy(copy.config(), CPU)
    with pytest.raises(UserError, match=f"it lacks {lost.split('/')[0]}/"):
        load_text_encoder(copy.config(), CPU)
    shutil.rmtree(copy.path / "transformer")
    shutil.rmtree(copy.path / "vae")
    with pytest.raises(UserError, match=r"it lacks transformer/config.json"):
        load_policy(copy.config(), CPU)


def test_a_truncated_file_and_a_pointer_are_named(copy: Small):
    file = copy.path / "transformer" / "diffusion_pytorch_model-00003-of-00004.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(
        UserError, match=r"00003-of-00004.safetensors in transformer/ is truncated or damaged"
    ):
        load_policy(copy.config(), CPU)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(UserError, match=r"is a Git LFS pointer, not the weights"):
        load_policy(copy.config(), CPU)
    file.write_bytes(whole)
    load_policy(copy.config(), CPU)


def test_a_damaged_config_is_named(copy: Small):
    (copy.path / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(UserError, match=r"model_index.json cannot be read"):
        load_policy(copy.config(), CPU)


def test_more_pixels_than_sd3_has_positions_are_refused(sd3: Small):
    load_policy(sd3.config(resolution=192), CPU)
    with pytest.raises(UserError, match=r"model.resolution=208 is more .* at most 192"):
        load_policy(sd3.config(resolution=208), CPU)
    with pytest.raises(UserError, match=r"resolution=200 is not a multiple of 16"):
        load_policy(sd3.config(resolution=200), CPU)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_weights_of_another_base_are_refused(flux: Small, sd3: Small, copy: Small, tmp_path, lora):
    file = tmp_path / "model.safetensors"
    load_policy(flux.config(), CPU, lora=lora).save_weights(file)
    load_policy(copy.config(), CPU).load_weights(file)  # a copy is the same base
    refused = "not the weights of this transformer"
    with pytest.raises(UserError, match=refused):
        load_policy(sd3.config(), CPU).load_weights(file)
    weights = copy.path / "transformer" / "diffusion_pytorch_model-00001-of-00004.safetensors"
    with safe_open(weights, framework="pt") as old:
        tensors = {name: old.get_tensor(name) + 1 for name in old.keys()}  # noqa: SIM118
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(
        UserError,
        match=rf"{refused} \(it was trained from the base model {identity(flux.path)}, this one is",
    ):
        load_policy(copy.config(), CPU).load_weights(file)


def test_adapters_of_another_width_are_refused(flux: Small, world, tmp_path: Path):
    """Names may be the same, as those of two sizes of one architecture are."""
    file = tmp_path / "model.safetensors"
    load_policy(world.settings().model, CPU, lora=LORA).save_weights(file)
    with pytest.raises(UserError, match=r"with \d+ features (in|out), here there are 32"):
        load_policy(flux.config(), CPU).load_weights(file)


def test_weights_of_another_width_are_refused(flux: Small, world, tmp_path: Path):
    file = tmp_path / "model.safetensors"
    load_policy(world.settings().model, CPU).save_weights(file)
    with pytest.raises(UserError, match=r"its context_embedder.bias is \[\d+\], here it is \[32\]"):
        load_policy(flux.config(), CPU).load_weights(file)


def test_the_bytes_of_adapters_are_the_same_in_every_process(flux: Small, tmp_path: Path):
    """Sets and maps have another order in each: none may reach the file."""
    file = tmp_path / "model.safetensors"
    load_policy(flux.config(), CPU, lora=LORA).save_weights(file)
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header["__metadata__"]
    assert list(metadata) == sorted(metadata)
    adapters = json.loads(metadata["lora_adapter_metadata"])
    assert adapters["transformer.target_modules"] == sorted(adapters["transformer.target_modules"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"revision": "main", "path": "a/b"}, "revision='main': wanted a commit, 40 hexadecimal"),
        ({"revision": "0" * 40, "path": "models/x/flux"}, "is no name of a hub repository"),
    ],
)
def test_a_revision_is_a_commit_of_a_hub_repository(change: dict, said: str):
    with pytest.raises(ValueError, match=said):
        ModelConfig(name="flux", **change)
